"""Sizes of images and patches: one number or two, and whether they fit together."""

from __future__ import annotations

from jax.typing import ArrayLike
from jaxtyping import Float


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of a size; one number stands for a square."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def grid(image_size: int | tuple[int, int], patch: int | tuple[int, int]) -> tuple[int, int]:
    """Returns how many (rows, columns) of patches an image has.

    Raises:
      ValueError: the patches do not fill the image; the message gives the nearest size.
    """
    (height, width), (ph, pw) = pair(image_size), pair(patch)
    if height % ph or width % pw:
        raise ValueError(
            f"image_size {height} x {width} is not a multiple of the patch, {ph} x {pw}; "
            f"the nearest size is {max(1, round(height / ph)) * ph} x "
            f"{max(1, round(width / pw)) * pw}"
        )
    return height // ph, width // pw


def check(
    images: Float[ArrayLike, "batch height width channel"], image_size: int | tuple[int, int]
) -> None:
    """Checks that `images` is a batch of RGB images of the size that a network takes.

    Raises:
      ValueError: the shape is another one.
    """
    height, width = pair(image_size)
    if images.ndim != 4 or images.shape[1:] != (height, width, 3):
        shape = " x ".join(map(str, images.shape))
        raise ValueError(
            f"images are {shape}, but this network takes N x {height} x {width} x 3 (channels "
            f"last); resize them, or create the network with another image_size"
        )
