"""Random resized crop: the crop of torchvision and timm, with which DeiT was trained."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8

from vitcnn.data import crops
from vitcnn.data.augmentation import Geometry
from vitcnn.data.preprocess import Preprocess

ASPECT = (3 / 4, 4 / 3)  # of width to height
ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Geometry):
    """Crops a part of random area and aspect ratio, and resizes it with antialiasing.

    The area is uniform, and so is the logarithm of the aspect ratio. After 10 attempts that do not
    fit, the largest central crop of an allowed aspect ratio is taken.

    Attributes:
      min_area: least area of a crop, as a share of the image.
      max_area: greatest area of a crop, as a share of the image.
      interpolation: such as "bicubic"; "" is that of `Preprocess`.
    """

    min_area: float = 0.08
    max_area: float = 1.0
    interpolation: str = ""

    def __post_init__(self):
        crops.check_area(self.min_area, self.max_area)
        crops.check_interpolation(self.interpolation)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a crop of `preprocess.size`."""
        top, left, height, width = self.box(*image.shape[:2], rng)
        crop = image[top : top + height, left : left + width]
        return crops.resized(
            crop, preprocess, size=preprocess.size, interpolation=self.interpolation
        )

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Returns (top, left, height, width) of a crop, in pixels of an image of this size."""
        for _ in range(ATTEMPTS):
            area = height * width * rng.uniform(self.min_area, self.max_area)
            aspect = math.exp(rng.uniform(*map(math.log, ASPECT)))
            rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
                return int(top), int(left), rows, columns
        low, high = ASPECT
        rows = min(height, round(width / low))
        columns = min(width, round(height * high))
        return (height - rows) // 2, (width - columns) // 2, rows, columns


AUGMENTATION = RandomResizedCrop
