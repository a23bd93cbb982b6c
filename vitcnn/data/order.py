"""Order: in which order images are read, as a pure function of a seed."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int64


def order(
    source_length: int, images: int | None, seed: int, repeat: int = 0
) -> Int64[np.ndarray, " images"]:
    """Returns the first `images` indices of the permutation of (seed, repeat).

    Args:
      source_length: number of images in the source.
      images: number of indices to return; None for all.
      seed: seed of the permutations.
      repeat: number of the permutation; the permutations of one seed are independent.

    Raises:
      ValueError: `images` is more than the source has.
    """
    images = source_length if images is None else images
    if not 0 <= images <= source_length:
        raise ValueError(
            f"{images} images are asked for, but the source has {source_length}; "
            f"set images to at most {source_length}, or choose a larger source"
        )
    return permutation(source_length, seed, repeat)[:images].copy()


@functools.lru_cache(maxsize=4)
def permutation(length: int, seed: int, repeat: int) -> Int64[np.ndarray, " length"]:
    """Returns the permutation of (seed, repeat), read-only because callers share it."""
    indices = generator(seed, repeat).permutation(length)
    indices.setflags(write=False)
    return indices


def generator(seed: int, *key: int) -> np.random.Generator:
    """Returns the generator of (seed, key); different keys give independent streams."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
