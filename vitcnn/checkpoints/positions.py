"""Position embeddings of one grid of patches, resized to another.

Both ways are linear along each axis, so each is a small matrix for the rows and one for the
columns, made in float64.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from vitcnn.lookup import check_name

RESIZES = ("bicubic", "linear")


def resize(
    table: Float[np.ndarray, "1 positions width"],
    prefix: int,
    before: tuple[int, int],
    after: tuple[int, int],
    method: str = "bicubic",
) -> Float[np.ndarray, "1 resized width"]:
    """Returns the embedding of another grid; that of the prefix tokens is left as it is.

    Args:
      table: one vector a token: prefix tokens, then the patches by rows.
      prefix: number of prefix tokens that have a position.
      before, after: (rows, columns) of the grids.
      method: "bicubic": Keys' cubic of a = -0.5 about pixel centres, which grows with the step
        when the grid shrinks, as torch's `interpolate(mode="bicubic", antialias=True)` and so timm
        do it; "linear": between the corners, as Google's vision_transformer does it
        (`scipy.ndimage.zoom(order=1)`).

    Raises:
      ValueError: the method is unknown, or the table is not of the grid `before`.
    """
    check_name("position_resize", method, RESIZES)
    if table.shape[1] != prefix + math.prod(before):
        raise ValueError(
            f"the position embedding has {table.shape[1]} tokens, not {prefix} and a grid of "
            f"{before[0]} x {before[1]}"
        )
    if before == after:
        return table
    matrix = _bicubic if method == "bicubic" else _linear
    rows, columns = (matrix(*sides) for sides in zip(before, after, strict=True))
    grid = np.float64(table[0, prefix:]).reshape(*before, -1)
    grid = np.einsum("ri,cj,ijw->rcw", rows, columns, grid, optimize=True)
    grid = grid.reshape(math.prod(after), -1).astype(np.float32)
    return np.concatenate([table[:, :prefix], grid[None]], axis=1)


def _bicubic(before: int, after: int) -> Float[np.ndarray, "after before"]:
    """Returns the weights of the old places in each new one, rows that add up to 1."""
    step = before / after
    width = max(step, 1.0)  # of the filter: it does not sharpen when the grid grows
    centres = (np.arange(after) + 0.5) * step
    x = np.abs(np.arange(before) + 0.5 - centres[:, None]) / width
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _linear(before: int, after: int) -> Float[np.ndarray, "after before"]:
    """Returns the weights of the old places in each new one; first and last places coincide."""
    places = np.linspace(0, before - 1, after)
    return np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(before)))
