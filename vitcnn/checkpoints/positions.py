"""Position embeddings of one grid of patches, resized to another.

Both methods are linear and work along each axis in turn, so each needs one small matrix for the
rows and one for the columns, in float64.
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
    """Returns the embedding resized to another grid; prefix tokens keep theirs.

    Args:
      table: one vector per token: the prefix tokens, then the patches row by row.
      prefix: number of prefix tokens that have a position.
      before, after: (rows, columns) of the grids.
      method: "bicubic" is Keys' cubic with a = -0.5 about pixel centres, widened by the step when
        the grid shrinks; timm uses it, as torch's `interpolate(mode="bicubic", antialias=True)`.
        "linear" keeps the corners in place; Google's vision_transformer uses it, as
        `scipy.ndimage.zoom(order=1)`.

    Raises:
      ValueError: the method is unknown, or the table does not have the grid `before`.
    """
    check_name("position_resize", method, RESIZES)
    if table.shape[1] != prefix + math.prod(before):
        raise ValueError(
            f"the position embedding has {table.shape[1]} tokens, not {prefix} and a grid of "
            f"{before[0]} x {before[1]}; set position_grid=(rows, columns) to that of the weights"
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
    """Returns the weight of each old position in each new one; rows add up to 1."""
    step = before / after
    width = max(step, 1.0)  # of the filter; never below 1, which would sharpen a grid that grows
    centres = (np.arange(after) + 0.5) * step
    x = np.abs(np.arange(before) + 0.5 - centres[:, None]) / width
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _linear(before: int, after: int) -> Float[np.ndarray, "after before"]:
    """Returns the weight of each old position in each new one; first and last stay in place."""
    places = np.linspace(0, before - 1, after)
    return np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(before)))
