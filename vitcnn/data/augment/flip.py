"""Flip: an image is mirrored left to right, or not, with equal probability."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int64

from vitcnn.data.augmentation import Move


@dataclasses.dataclass(frozen=True)
class Flip(Move):
    """Mirrors an image left to right with probability 1/2."""

    def places(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[Int64[np.ndarray, " h"], Int64[np.ndarray, " w"]]:
        """Returns the rows and columns of the image or of its mirror image."""
        columns = np.arange(width)
        return np.arange(height), columns[::-1] if rng.random() < 0.5 else columns


AUGMENTATION = Flip
