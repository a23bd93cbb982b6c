"""Cutout: a square of an image becomes grey (DeVries and Taylor 2017, arXiv 1708.04552)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data.augmentation import Change, check_range
from vitcnn.data.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class Cutout(Change):
    """Greys a square around a random pixel; what lies outside of the image is cut off.

    Attributes:
      size: side of the square in pixels.
      fill: value of the square, 0 to 255.
    """

    size: int
    fill: int = 128

    def __post_init__(self):
        check_range("size", self.size, 1)
        check_range("fill", self.fill, 0, 255)

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if the square is larger than the images."""
        if preprocess.size is not None and self.size > min(preprocess.size):
            height, width = preprocess.size
            raise ValueError(
                f"cutout({self.size}) greys squares that are larger than the images, "
                f"{height} x {width} pixels"
            )

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a copy of the image with the square in it."""
        rows, columns = (self._span(rng, side) for side in image.shape[:2])
        image = image.copy()
        image[rows, columns] = self.fill
        return image

    def _span(self, rng: np.random.Generator, side: int) -> slice:
        start = int(rng.integers(side)) - self.size // 2
        return slice(max(0, start), max(0, start + self.size))


AUGMENTATION = Cutout
