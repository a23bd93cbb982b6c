"""Flip: an image is mirrored left to right, or not, with equal probability."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int64, UInt8

from vitcnn.data.augmentation import Move


@dataclasses.dataclass(frozen=True)
class Flip(Move):
    """Mirrors an image left to right with probability 1/2."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Returns whether an image is mirrored."""
        return (int(rng.random() < 0.5),)

    def places(
        self, drawn: Int64[np.ndarray, "n 1"], height: int, width: int
    ) -> tuple[Int64[np.ndarray, "n h"], Int64[np.ndarray, "n w"]]:
        """Returns the rows and columns of images or of their mirror images."""
        columns = np.arange(width)
        rows = np.broadcast_to(np.arange(height), (len(drawn), height))
        return rows, np.where(drawn, columns[::-1], columns)

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image or its mirror image, a view of it."""
        (mirrored,) = self.draw(*image.shape[:2], rng)
        return image[:, ::-1] if mirrored else image


AUGMENTATION = Flip
