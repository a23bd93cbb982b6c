"""Pad and crop: an image is shifted by a few pixels (He et al. 2016 do so on CIFAR-10)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data.augmentation import Change, check_range
from vitcnn.data.preprocess import Preprocess
from vitcnn.lookup import check_name

MODES = {"reflect": "reflect", "zero": "constant"}  # mode -> mode of numpy.pad


@dataclasses.dataclass(frozen=True)
class PadCrop(Change):
    """Pads an image on all sides and crops its size at a random place.

    Attributes:
      pad: width of the border in pixels, and so the largest shift.
      mode: content of the border: "reflect" mirrors the image without repeating its outermost
        pixels, "zero" is black.
    """

    pad: int = 4
    mode: str = "reflect"

    def __post_init__(self):
        check_range("pad", self.pad, 1)
        check_name("mode", self.mode, MODES)

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if the images are too small to be reflected."""
        if preprocess.size is not None:
            self._check_size(*preprocess.size)

    def _check_size(self, height: int, width: int) -> None:
        if self.mode == "reflect" and min(height, width) <= self.pad:
            raise ValueError(
                f"pad_crop needs images larger than {self.pad} pixels, not {height} x {width}; "
                "lower pad, or set mode='zero'"
            )

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of the padded image."""
        height, width = image.shape[:2]
        self._check_size(height, width)
        top, left = rng.integers(0, 2 * self.pad + 1, 2)
        border = ((self.pad, self.pad), (self.pad, self.pad), (0, 0))
        padded = np.pad(image, border, mode=MODES[self.mode])
        return padded[top : top + height, left : left + width]


AUGMENTATION = PadCrop
