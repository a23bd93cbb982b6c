"""Resize the short side and crop: a milder crop for fine-tuning, "resmall" in Google's configs."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data import crops
from vitcnn.data.augmentation import Geometry
from vitcnn.data.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class ResizeSmallCrop(Geometry):
    """Resizes the short side of an image, keeps its aspect ratio, and crops a random part.

    Attributes:
      resize: short side in pixels before the crop.
      interpolation: such as "box", which averages areas; "" is that of `Preprocess`.
    """

    resize: int
    interpolation: str = ""

    def __post_init__(self):
        crops.check_interpolation(self.interpolation)

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if the crops are larger than the short side."""
        crops.check_resize(self.resize, preprocess)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of `preprocess.size`."""
        image = crops.resized(
            image, preprocess, short_side=self.resize, interpolation=self.interpolation
        )
        return crops.random_window(image, preprocess.size, rng)


AUGMENTATION = ResizeSmallCrop
