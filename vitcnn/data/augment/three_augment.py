"""3-Augment of DeiT-III (Touvron et al. 2022, arXiv 2204.07118): one of three strong changes."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter, ImageOps

from vitcnn.data.augmentation import Change

THRESHOLD = 128  # of solarisation
RADIUS = (0.1, 2.0)  # of the blur, pixels


@dataclasses.dataclass(frozen=True)
class ThreeAugment(Change):
    """Makes an image grey, solarises it, or blurs it, with equal probability.

    DeiT-III lets `color_jitter(0.3)` follow.
    """

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the changed image."""
        picture = Image.fromarray(image)
        change = rng.integers(3)
        if change == 0:
            picture = picture.convert("L").convert("RGB")
        elif change == 1:
            picture = ImageOps.solarize(picture, THRESHOLD)
        else:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(*RADIUS)))
        return np.asarray(picture)


AUGMENTATION = ThreeAugment
