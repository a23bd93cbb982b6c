"""Resize the short side and crop: a milder crop for fine-tuning, "resmall" in Google's configs."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data import crops
from vitcnn.data.augment.resize_crop import ResizeCrop
from vitcnn.data.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class ResizeSmallCrop(ResizeCrop):
    """Resizes the short side of an image, keeps its aspect ratio, and crops a random part.

    Attributes:
      resize: short side in pixels before the crop.
      interpolation: such as "box", which averages areas; "" is that of `Preprocess`.
    """

    def resized(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image before the crop."""
        return crops.resized(
            image, preprocess, short_side=self.resize, interpolation=self.interpolation
        )


AUGMENTATION = ResizeSmallCrop
