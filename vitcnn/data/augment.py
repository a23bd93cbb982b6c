"""Augmentation: random changes of a training image on the host, after its geometry."""

from __future__ import annotations

import numpy as np

PAD = 4  # pixels; He et al. 2016 pad CIFAR-10 images by 4


def _flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors an image left to right with probability 1/2."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def _pad_crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts an image by up to PAD pixels each way; the border is filled by reflection."""
    height, width = image.shape[:2]
    if min(height, width) <= PAD:
        raise ValueError(f"pad_crop needs images larger than {PAD} pixels, not {height} x {width}")
    top, left = rng.integers(0, 2 * PAD + 1, 2)
    padded = np.pad(image, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
    return padded[top : top + height, left : left + width]


AUGMENTATIONS = {"flip": _flip, "pad_crop": _pad_crop}
