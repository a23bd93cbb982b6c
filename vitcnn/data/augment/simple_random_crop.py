"""Simple random crop: the crop of DeiT-III on ImageNet-21k (Touvron et al. 2022, section 3.2)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data import crops
from vitcnn.data.augmentation import Geometry, check_range
from vitcnn.data.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class SimpleRandomCrop(Geometry):
    """Resizes the short side to that of the crop, pads by reflection, and crops a random part.

    Attributes:
      pad: width of the border in pixels.
      interpolation: such as "bicubic"; "" is that of `Preprocess`.
    """

    pad: int = 4
    interpolation: str = ""

    def __post_init__(self):
        check_range("pad", self.pad, 0)
        crops.check_interpolation(self.interpolation)

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if the images are too small to be reflected."""
        if max(preprocess.size) <= self.pad:
            raise ValueError(
                f"simple_random_crop needs crops larger than pad = {self.pad}, but preprocess.size "
                f"is {preprocess.size}"
            )

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of `preprocess.size`."""
        image = crops.resized(
            image, preprocess, short_side=max(preprocess.size), interpolation=self.interpolation
        )
        border = ((self.pad, self.pad), (self.pad, self.pad), (0, 0))
        return crops.random_window(np.pad(image, border, mode="reflect"), preprocess.size, rng)


AUGMENTATION = SimpleRandomCrop
