"""Pad and crop: an image is shifted by a few pixels (He et al. 2016 do so on CIFAR-10)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int64

from vitcnn.data.augmentation import Move, check_range
from vitcnn.data.preprocess import Preprocess
from vitcnn.lookup import check_name

MODES = ("reflect", "zero")


@dataclasses.dataclass(frozen=True)
class PadCrop(Move):
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

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Returns top and left of a crop of the padded image."""
        self._check_size(height, width)
        return tuple(rng.integers(0, 2 * self.pad + 1, 2).tolist())

    def places(
        self, drawn: Int64[np.ndarray, "n 2"], height: int, width: int
    ) -> tuple[Int64[np.ndarray, "n h"], Int64[np.ndarray, "n w"]]:
        """Returns the rows and columns of crops of padded images."""
        top, left = (drawn - self.pad).T
        return self._shifted(top, height), self._shifted(left, width)

    def _shifted(self, shift: Int64[np.ndarray, " n"], size: int) -> Int64[np.ndarray, "n size"]:
        """Returns the places along an axis after a shift, in the border those of its content."""
        places, last = shift[:, None] + np.arange(size), size - 1
        if self.mode == "zero":
            return np.where((places >= 0) & (places <= last), places, -1)
        return last - np.abs(last - np.abs(places))


AUGMENTATION = PadCrop
