"""The cells of a tap's grid: which arrays are maps of it, its parts, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from vitcnn.taps import TapInfo


def is_map(info: TapInfo) -> bool:
    """Returns whether a tap with a grid is a map [rows, columns, ...] and no list of tokens."""
    return not info.prefix_tokens and tuple(info.shape[:2]) == tuple(info.grid)


def split(
    x: Float[Array, "n height width c"], grid: tuple[int, int]
) -> Float[Array, "n rows columns cell_height cell_width c"]:
    """Returns the non-overlapping cells into which a grid that divides a map divides it."""
    (n, height, width, _), (rows, columns) = x.shape, grid
    x = x.reshape(n, rows, height // rows, columns, width // columns, -1)
    return x.transpose(0, 1, 3, 2, 4, 5)


def cell(info: TapInfo, position: Sequence[float]) -> tuple[int, int]:
    """Returns the (row, column) of the cell of a tap's grid that a point of the image is in.

    Args:
      info: of the tap.
      position: (down, right), from 0 to 1.
    """
    row, column = (int(share * n) for share, n in zip(position, info.grid, strict=True))
    return row, column


def edges(at: int, cells: int, size: int) -> tuple[float, float]:
    """Returns where a cell starts and stops in px, along one side of the image.

    Args:
      at: number of the cell.
      cells: of the grid along this side.
      size: of the image along this side, px.
    """
    return at * size / cells, (at + 1) * size / cells


def geometry(
    info: TapInfo, position: Sequence[float], image: tuple[int, int]
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Returns the distance in px of each pixel from the middle of the cell, and what is inside it.

    Args:
      info: of the tap.
      position: (down, right), from 0 to 1.
      image: (height, width) in px.

    Returns:
      (distances of the middles of the pixels, share of each pixel that is inside the cell).
    """
    away, inside = [], []
    for at, cells, size in zip(cell(info, position), info.grid, image, strict=True):
        start, stop = edges(at, cells, size)
        pixel = np.arange(size)
        away.append(pixel + 0.5 - (start + stop) / 2)
        inside.append(np.clip(np.minimum(pixel + 1, stop) - np.maximum(pixel, start), 0, 1))
    return np.hypot(away[0][:, None], away[1][None, :]), np.outer(*inside)
