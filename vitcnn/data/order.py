"""The order in which images are read: a pure function of a seed."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int64


def order(
    source_length: int, images: int | None, seed: int, repeat: int = 0
) -> Int64[np.ndarray, " images"]:
    """Returns the first `images` indices of the permutation of (seed, repeat).

    Args:
      source_length: how many images the source has.
      images: how many to take; None for all.
      seed, repeat: two repeats of one seed are two independent permutations.

    Raises:
      ValueError: more images are asked for than there are.
    """
    images = source_length if images is None else images
    if not 0 <= images <= source_length:
        raise ValueError(
            f"{images} images are asked for, but the source has {source_length}; "
            f"set images to {source_length} or less, or choose a larger source"
        )
    return permutation(source_length, seed, repeat)[:images].copy()


@functools.lru_cache(maxsize=4)
def permutation(length: int, seed: int, repeat: int) -> Int64[np.ndarray, " length"]:
    """Returns the permutation of (seed, repeat), shared and read-only."""
    permutation = generator(seed, repeat).permutation(length)
    permutation.setflags(write=False)  # it is shared
    return permutation


def generator(seed: int, *key: int) -> np.random.Generator:
    """Returns the generator of (seed, key): other keys give independent streams."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
