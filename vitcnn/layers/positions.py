"""Fixed position embeddings."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def sincos2d(grid: tuple[int, int], width: int) -> Float[np.ndarray, "positions width"]:
    """Returns sines and cosines of the row and the column of each patch, row by row, in float32.

    Each quarter of the width holds one of: sines of the column, cosines of the column, sines of the
    row, cosines of the row, at wavelengths from 2 pi to 20,000 pi patches (Chen et al. 2021, arXiv
    2104.02057; big_vision's "sincos2d").

    Args:
      grid: (rows, columns) of patches.
      width: size of a token, a multiple of 4.
    """
    rows, columns = grid
    frequency = 10_000.0 ** -np.linspace(0, 1, width // 4)
    down, right = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(place, frequency) for place in (right, down)]
    parts = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1, dtype=np.float32)
