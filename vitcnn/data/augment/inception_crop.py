"""Inception crop: the random crop with which Google's ViTs, Mixers and ResNets were trained."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vitcnn.data.augmentation import Geometry
from vitcnn.data.crops import check_area
from vitcnn.data.preprocess import Preprocess

ASPECT = (0.75, 1.33)  # of width to height
ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class InceptionCrop(Geometry):
    """Crops a part of random area and aspect ratio, as `tf.image.sample_distorted_bounding_box`.

    The aspect ratio is uniform, then the height is uniform between the heights that give the least
    and the greatest area, so small areas are frequent. The last row and the last column are in a
    crop only if it has the full height or width. After 100 attempts that do not fit, the whole
    image is taken. The crop is resized bilinearly without antialiasing and rounded down.

    Attributes:
      min_area: least area of a crop, as a share of the image.
      max_area: greatest area of a crop, as a share of the image.
    """

    min_area: float = 0.05
    max_area: float = 1.0

    def __post_init__(self):
        check_area(self.min_area, self.max_area)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of `preprocess.size`."""
        top, left, height, width = self.box(*image.shape[:2], rng)
        crop = Image.fromarray(image[top : top + height, left : left + width])
        size = preprocess.size[::-1]  # Pillow's order: width, height
        # Unlike `resize`, `transform` never averages over more than four pixels.
        extent = (0, 0, width, height)
        crop = crop.transform(size, Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)
        return np.asarray(crop)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Returns (top, left, height, width) of a crop, in pixels of an image of this size."""
        for _ in range(ATTEMPTS):
            sides = self._sides(height, width, rng)
            if sides is not None:
                top, left = (
                    int(rng.integers(whole - side)) if side < whole else 0
                    for side, whole in zip(sides, (height, width), strict=True)
                )
                return top, left, *sides
        return 0, 0, height, width

    def _sides(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """Returns the (height, width) of a crop, None if the attempt does not fit."""
        aspect = rng.uniform(*ASPECT)
        least, greatest = self.min_area * height * width, self.max_area * height * width
        lowest, highest = (round(math.sqrt(area / aspect)) for area in (least, greatest))
        highest = min(highest, height, int((width + 0.5) / aspect))
        if round(highest * aspect) > width:
            highest -= 1
        rows = int(rng.integers(lowest, highest + 1)) if lowest < highest else highest
        # A crop whose area is out of bounds by rounding gets one row more or less.
        if rows * round(rows * aspect) < least:
            rows += 1
        if rows * round(rows * aspect) > greatest:
            rows -= 1
        columns = round(rows * aspect)
        fits = least <= rows * columns <= greatest and rows <= height and columns <= width
        return (rows, columns) if fits and rows > 0 and columns > 0 else None


AUGMENTATION = InceptionCrop
