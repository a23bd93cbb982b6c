"""Preprocessing: what happens to an image before the first layer of a model.

The geometry (resize, crop) runs on the host in uint8. The normalisation is arithmetic that works on
NumPy and on JAX arrays, so it can run inside a compiled program.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vitcnn.lookup import check_name

INTERPOLATIONS = {
    name: Image.Resampling[name.upper()]
    for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Geometry and normalisation of the images of one model.

    With `resize`, the short side becomes `resize`, the aspect ratio is kept, and the centre of
    `size` is cropped (the usual evaluation on ImageNet: resize=256, size=224), to the same pixels
    as in torchvision and timm. A `resize` of two numbers does not keep the aspect ratio. Without
    `resize`, the whole image is resized to `size`, whatever its aspect ratio. An image that already
    has the right size is not changed. If both are None, no image is changed.

    Attributes:
      size: (height, width) in pixels of the model's input; one number means a square.
      resize: short side in pixels before the centre crop, or (height, width), as in timm's
        crop_mode "squash"; 0 or None for no crop.
      interpolation: one of `INTERPOLATIONS`. All but "nearest" are antialiased: when an image
        shrinks, the filter grows with it.
      mean, std: per channel (red, green, blue), in units of images in [0, 1].

    Raises:
      ValueError: a field is out of range, or the interpolation is unknown.
    """

    size: int | tuple[int, int] | None = None
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        check_name("interpolation", self.interpolation, INTERPOLATIONS)
        if self.size is not None:
            sides = (self.size,) * 2 if _is_integer(self.size) else tuple(self.size)
            if not _are_sides(sides):
                raise ValueError(
                    f"preprocess.size is {self.size!r}: expected (height, width) in pixels, both "
                    "above 0, or None to leave images as they are"
                )
            object.__setattr__(self, "size", tuple(int(side) for side in sides))
        if self.resize == 0:
            object.__setattr__(self, "resize", None)
        if self.resize is not None:
            pair = isinstance(self.resize, (tuple, list))
            sides = tuple(self.resize) if pair else (self.resize,) * 2
            if not _are_sides(sides):
                raise ValueError(
                    f"preprocess.resize is {self.resize!r}: expected the short side in pixels, "
                    "above 0, or (height, width), or 0 to resize straight to preprocess.size"
                )
            sides = tuple(int(side) for side in sides)
            object.__setattr__(self, "resize", sides if pair else sides[0])
            crop = () if self.size is None else self.size if pair else (min(self.size),)
            if any(cut > side for cut, side in zip(crop, sides, strict=False)):
                into = (
                    "preprocess.resize" if pair else "images whose short side is preprocess.resize"
                )
                raise ValueError(
                    f"preprocess.size {self.size} does not fit into {into} = {self.resize}; set "
                    f"preprocess.resize to at least {self.size if pair else max(self.size)}"
                )
        for name in ("mean", "std"):
            values = tuple(map(float, np.atleast_1d(getattr(self, name))))
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(
                    f"preprocess.{name} is {getattr(self, name)!r}: expected three finite numbers, "
                    "one per channel, in units of images in [0, 1]"
                )
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise ValueError(f"preprocess.std is {self.std}: expected three numbers above 0")

    @property
    def cut(self) -> tuple:
        """The fields that decide `geometry`: models of equal `cut` see the same uint8 pixels."""
        return self.size, self.resize, self.interpolation

    def geometry(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image resized and cropped, or the same array if nothing has to change.

        Raises:
          ValueError: not a uint8 RGB image, or the crop is larger than the resized image.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"an image is {image.dtype} {image.shape}: expected uint8 [height, width, 3]"
            )
        return self._cut(image, *image.shape[:2])

    def _cut(
        self, image: UInt8[np.ndarray, "H W 3"] | Image.Image, height: int, width: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns an image of this height and width resized and cropped."""
        if self.resize is None:
            size = (height, width) if self.size is None else self.size
            return self._resized(image, (height, width), size)
        image = self._resized(image, (height, width), self._before_crop(height, width))
        return image if self.size is None else self._cropped(image)

    def boxes(
        self, boxes: Float[np.ndarray, "k 4"], height: int, width: int
    ) -> Float[np.ndarray, "k 4"]:
        """Returns boxes as the geometry moves them, NaN for those that the crop leaves out.

        Args:
          boxes: top, left, bottom and right of each box, in parts of the image.
          height, width: of the image in pixels, before the geometry.

        Returns:
          The same in parts of the result, cut off at its edges.

        Raises:
          ValueError: a subclass has a geometry of its own, and no `boxes` that goes with it.
        """
        if type(self).geometry is not Preprocess.geometry:
            raise ValueError(
                f"{type(self).__name__} has a geometry of its own, and nothing says how it moves "
                "boxes: give it a method boxes(boxes, height, width) too"
            )
        moved = np.asarray(boxes, np.float64).reshape(-1, 4)
        if self.resize is not None and self.size is not None:
            resized = np.array(self._before_crop(height, width))
            start = [round(gap / 2) for gap in resized - self.size]  # as `_cropped` does
            moved = (moved * np.tile(resized, 2) - np.tile(start, 2)) / np.tile(self.size, 2)
        moved = np.clip(moved, 0, 1)
        left_out = (moved[:, 2:] <= moved[:, :2]).any(1, keepdims=True)
        return np.where(left_out, np.nan, moved).astype(np.float32)

    def normalise(self, images: UInt8[Any, "N h w 3"]) -> Float[Any, "N h w 3"]:
        """Returns (images / 255 - mean) / std in float32, for a NumPy or a JAX array."""
        mean, std = (np.asarray(v, np.float64) * 255 for v in (self.mean, self.std))
        return (images.astype(np.float32) - mean.astype(np.float32)) / std.astype(np.float32)

    def __call__(
        self, images: UInt8[np.ndarray, "N H W 3"] | Sequence[UInt8[np.ndarray, "H W 3"]]
    ) -> Float[np.ndarray, "N h w 3"]:
        """Applies geometry and normalisation to a batch, or to a list of images of any sizes.

        Raises:
          ValueError: the arrays are not images, or their sizes differ and `size` is None.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise ValueError(f"one image of shape {images.shape}: pass a batch, image[None]")
        return self.normalise(stack([self.geometry(image) for image in images]))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, for provenance and configs: `Preprocess(**p.to_dict()) == p`."""
        return dataclasses.asdict(self)

    def _before_crop(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) to which an image is resized before the crop."""
        if not _is_integer(self.resize):
            return self.resize
        short = min(height, width)
        # The long side is rounded down, as in torchvision's evaluation.
        return self.resize * height // short, self.resize * width // short

    def _resized(
        self,
        image: UInt8[np.ndarray, "H W 3"] | Image.Image,
        before: tuple[int, int],
        size: tuple[int, int],
    ) -> UInt8[np.ndarray, "h w 3"]:
        if before == size:
            return np.asarray(image)
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return np.asarray(picture.resize(size[::-1], INTERPOLATIONS[self.interpolation]))

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        top, left = (side - crop for side, crop in zip(image.shape, self.size, strict=False))
        if min(top, left) < 0:
            raise ValueError(
                f"preprocess.size {self.size} is larger than the image after its short side was "
                f"resized to {self.resize}: {image.shape[:2]}; set preprocess.resize to "
                f"{max(self.size)} or more, or to 0 to resize straight to preprocess.size"
            )
        top, left = round(top / 2), round(left / 2)  # half to even, as torchvision rounds
        return image[top : top + self.size[0], left : left + self.size[1]]


def geometry_of(
    image: UInt8[np.ndarray, "H W 3"] | Image.Image, preprocess: Preprocess
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns `preprocess.geometry(image)`, of an array or of an image in mode RGB of Pillow.

    The latter is resized as it is, if no subclass of `Preprocess` has a geometry of its own.
    """
    own = type(preprocess).geometry is not Preprocess.geometry
    if own or not isinstance(image, Image.Image):
        return preprocess.geometry(np.asarray(image))
    return preprocess._cut(image, *image.size[::-1])


def stack(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], names: Sequence[Any] | None = None
) -> UInt8[np.ndarray, "N h w 3"]:
    """Returns images of one size as one array [N, h, w, 3].

    Raises:
      ValueError: the sizes differ; the message names two images (by `names`, or by position).
    """
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            first, other = (names[0], names[i]) if names is not None else (0, i)
            raise ValueError(
                f"image {first} is {images[0].shape[0]} x {images[0].shape[1]} and image {other} "
                f"is {image.shape[0]} x {image.shape[1]} pixels: set preprocess.size=(height, "
                "width) to give all images one size"
            )
    return np.stack(images)


def as_rgb(image: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Returns a stored image as RGB: grey is repeated, the alpha channel is dropped.

    Args:
      image: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].

    Raises:
      ValueError: any other type or shape.
    """
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    if image.dtype != np.uint8 or channels not in (1, 3, 4):
        raise ValueError(
            f"an image is {image.dtype} {image.shape}: expected uint8 [height, width] or "
            "[height, width, channels] with 1 (grey), 3 (RGB) or 4 (RGBA) channels"
        )
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image[..., :3]


def _are_sides(values: Sequence[Any]) -> bool:
    """Whether values are (height, width) in pixels."""
    return len(values) == 2 and all(_is_integer(value) and value > 0 for value in values)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
