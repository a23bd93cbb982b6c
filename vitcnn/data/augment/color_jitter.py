"""Colour jitter: random brightness, contrast and saturation, as torchvision's without hue."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

from vitcnn.data.augmentation import Change, check_range

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclasses.dataclass(frozen=True)
class ColorJitter(Change):
    """Changes brightness, contrast and saturation in random order.

    Attributes:
      strength: each factor is uniform between 1 - strength, at least 0, and 1 + strength.
    """

    strength: float = 0.3

    def __post_init__(self):
        check_range("strength", self.strength, 0)

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image with other colours."""
        picture = Image.fromarray(image)
        for i in rng.permutation(len(ENHANCERS)):
            factor = rng.uniform(max(0, 1 - self.strength), 1 + self.strength)
            picture = ENHANCERS[i](picture).enhance(factor)
        return np.asarray(picture)


AUGMENTATION = ColorJitter
