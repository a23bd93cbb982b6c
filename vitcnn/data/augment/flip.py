"""Flip: an image is mirrored left to right, or not, with equal probability."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from vitcnn.data.augmentation import Change


@dataclasses.dataclass(frozen=True)
class Flip(Change):
    """Mirrors an image left to right with probability 1/2."""

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image or its mirror image."""
        return image[:, ::-1] if rng.random() < 0.5 else image


AUGMENTATION = Flip
