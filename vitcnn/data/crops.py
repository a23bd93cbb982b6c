"""Parts that the geometries among the augmentations share."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data.augmentation import check_range
from vitcnn.data.preprocess import INTERPOLATIONS, Preprocess
from vitcnn.lookup import check_name


def check_area(min_area: float, max_area: float) -> None:
    """Raises a ValueError unless 0 < min_area <= max_area <= 1."""
    check_range("max_area", max_area, 0, 1)
    check_range("min_area", min_area, 0, max_area)
    if min_area == 0:
        raise ValueError("min_area is 0: expected a share of the image above 0, such as 0.05")


def check_resize(resize: int, preprocess: Preprocess) -> None:
    """Raises a ValueError if crops of `preprocess.size` do not fit into images of side `resize`."""
    if resize < max(preprocess.size):
        raise ValueError(
            f"resize is {resize}: expected at least {max(preprocess.size)}, the larger side of "
            f"preprocess.size {preprocess.size}"
        )


def check_interpolation(interpolation: str) -> None:
    """Raises a ValueError unless an interpolation has this name, or it is empty."""
    if interpolation:
        check_name("interpolation", interpolation, INTERPOLATIONS)


def resized(
    image: UInt8[np.ndarray, "H W 3"],
    preprocess: Preprocess,
    *,
    size: tuple[int, int] | None = None,
    short_side: int | None = None,
    interpolation: str = "",
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns an image resized to `size`, or to a short side; "" is the model's interpolation."""
    change = {"interpolation": interpolation} if interpolation else {}
    resize = dataclasses.replace(preprocess, size=size, resize=short_side, **change)
    return resize.geometry(image)


def random_window(
    image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the part of an image of `size` at a random place."""
    top, left = (int(rng.integers(image.shape[axis] - size[axis] + 1)) for axis in (0, 1))
    return image[top : top + size[0], left : left + size[1]]
