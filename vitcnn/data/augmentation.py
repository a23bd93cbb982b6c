"""What an augmentation is: a geometry in place of the model's own, or a change after the geometry.

The augmentations themselves are in the folder `augment`. Each is a frozen dataclass, whose fields
are its arguments, and takes all its randomness from the generator that it is called with.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8

from vitcnn.data.preprocess import Preprocess


class Change:
    """A random change of an image that keeps its size."""

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the changed image; `image` itself stays as it is."""
        raise NotImplementedError

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if images of this preprocessing cannot be changed."""


class Move(Change):
    """A change that only moves pixels, so that a device can make it from a few numbers."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Returns the random numbers of one image."""
        raise NotImplementedError

    def places(
        self, drawn: Int64[np.ndarray, "n numbers"], height: int, width: int
    ) -> tuple[Int64[np.ndarray, "n h"], Int64[np.ndarray, "n w"]]:
        """Returns which row and column of an image each row and column of the result shows.

        Args:
          drawn: the numbers of n images.
          height, width: of the images, in pixels.

        Returns:
          Numbers of rows and of columns; -1 is black.
        """
        raise NotImplementedError

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image with its pixels moved."""
        height, width = image.shape[:2]
        drawn = np.array([self.draw(height, width, rng)])
        (rows,), (columns,) = self.places(drawn, height, width)
        moved = image.take(rows, 0).take(columns, 1)
        moved[rows < 0] = 0
        moved[:, columns < 0] = 0
        return moved


class Geometry:
    """A random crop of the image as it is stored, in place of the geometry of `Preprocess`."""

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of `preprocess.size`."""
        raise NotImplementedError

    def check(self, preprocess: Preprocess) -> None:
        """Raises a ValueError if there are no crops for this preprocessing."""


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises a ValueError unless low <= value <= high."""
    if not low <= value <= high:
        expected = f"{low:g} or more" if high == float("inf") else f"{low:g} to {high:g}"
        raise ValueError(f"{name} is {value:g}: expected {expected}")


def signed(value: float, rng: np.random.Generator) -> float:
    """Returns a value or its negative, each with probability 1/2."""
    return value if rng.random() < 0.5 else -value
