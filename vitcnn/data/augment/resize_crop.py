"""Resize and crop: a square resize and a random crop, with which BiT is fine-tuned."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data import crops
from vitcnn.data.augmentation import Geometry
from vitcnn.data.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class ResizeCrop(Geometry):
    """Resizes an image to a square, whatever its aspect ratio, and crops a random part.

    Attributes:
      resize: side of the square in pixels.
      interpolation: such as "bicubic"; "" is that of `Preprocess`.
    """

    resize: int
    interpolation: str = ""

    def __post_init__(self):
        crops.check_interpolation(self.interpolation)

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if the crops are larger than the resized image may be."""
        crops.check_resize(self.resize, preprocess)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of `preprocess.size`."""
        return crops.random_window(self.resized(image, preprocess), preprocess.size, rng)

    def resized(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image before the crop."""
        square = (self.resize, self.resize)
        return crops.resized(image, preprocess, size=square, interpolation=self.interpolation)


AUGMENTATION = ResizeCrop
