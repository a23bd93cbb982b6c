"""The layout of a tap: which tokens it has, and where the cells of its grid lie in the image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.taps import TapInfo

# Tokens of a tap that an analysis can take -> how titles name them.
TOKENS = {"all": "", "class": ", class token", "spatial": ", image positions"}
# The layers on the axes of the paper's heatmaps; see `vitcnn.analyses.cka`.
PAPER_LAYERS = (
    "embed",
    "*block*/ln1",
    "*block*/attn",
    "*block*/ln2",
    "*block*/hidden",
    "*block*/mlp",
    "*block*/out",
    "stem/*",
    "stage*/unit*/*",
    "norm",
    "pooled",
    "projection",
    "pre_logits",
    "logits",
)


def split(
    x: Float[Array, "n height width c"], grid: Sequence[int]
) -> Float[Array, "n rows columns cell_height cell_width c"]:
    """Returns the non-overlapping cells of a map; the grid has to divide the map evenly."""
    (n, height, width, _), (rows, columns) = x.shape, grid
    x = x.reshape(n, rows, height // rows, columns, width // columns, -1)
    return x.transpose(0, 1, 3, 2, 4, 5)


def cell(info: TapInfo, position: Sequence[float]) -> Sequence[int]:
    """Returns the (row, column) of the cell of a tap's grid that contains a point of the image.

    Args:
      info: description of the tap.
      position: the point as (down, right), from 0 to 1.
    """
    row, column = (int(share * n) for share, n in zip(position, info.grid, strict=True))
    return row, column


def edges(at: int, cells: int, size: int) -> tuple[float, float]:
    """Returns where a cell starts and stops in px, along one side of the image.

    Args:
      at: index of the cell.
      cells: number of cells along this side.
      size: length of this side of the image, px.
    """
    return at * size / cells, (at + 1) * size / cells


def geometry(
    info: TapInfo, position: Sequence[float], image: Sequence[int]
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Returns the distance of each pixel from the middle of a cell, and its share inside the cell.

    Args:
      info: description of the tap.
      position: a point of the cell as (down, right), from 0 to 1.
      image: (height, width) in px.

    Returns:
      (distances of the middles of the pixels, px; share of each pixel that is inside the cell).
    """
    away, inside = [], []
    for at, cells, size in zip(cell(info, position), info.grid, image, strict=True):
        start, stop = edges(at, cells, size)
        pixel = np.arange(size)
        away.append(pixel + 0.5 - (start + stop) / 2)
        inside.append(np.clip(np.minimum(pixel + 1, stop) - np.maximum(pixel, start), 0, 1))
    return np.hypot(away[0][:, None], away[1][None, :]), np.outer(*inside)


def patch_distances(
    grid: Sequence[int], image: Sequence[float]
) -> Float[np.ndarray, "patches patches"]:
    """Returns the distance in px between the centres of every two patches, row by row.

    Args:
      grid: (rows, columns) of patches.
      image: (height, width) of the image in px.
    """
    rows, columns = (np.arange(n) * size / n for n, size in zip(grid, image, strict=True))
    y, x = (axis.reshape(-1) for axis in np.meshgrid(rows, columns, indexing="ij"))
    return np.hypot(y[:, None] - y[None, :], x[:, None] - x[None, :])


def check_tokens(which: str, infos: Iterable[TapInfo]) -> None:
    """Checks the setting `tokens` of an analysis.

    Args:
      which: the setting, one of `TOKENS`.
      infos: descriptions of the taps of the analysis.

    Raises:
      ValueError: the setting is unknown, or no tap has a class token to take.
    """
    check_name("tokens", which, TOKENS)
    if which == "class" and not any(info.class_token for info in infos):
        raise ValueError(
            'tokens = "class", but none of the taps has a class token; set tokens = "all" or '
            '"spatial", or choose a model that has one'
        )


def which(info: TapInfo, tokens: str) -> str:
    """Returns `tokens`, or "all" for a tap that has no such tokens and is taken whole."""
    present = info.class_token if tokens == "class" else info.prefix_tokens
    return tokens if present else "all"


def grid_name(grid: Sequence[int]) -> str:
    """Returns the name of a grid in Results, such as "14x14"."""
    return "x".join(map(str, grid))


def attention(x: Float[Array, "n ..."], info: TapInfo) -> Float[Array, "n heads queries keys"]:
    """Returns attention weights of the image positions as queries; keys include prefix tokens.

    Args:
      x: the weights, [n, heads, tokens, tokens]; with windows [n, windows, heads, queries, keys],
        and then the queries of one window follow those of another.
      info: description of the tap.
    """
    if info.window is None:
        return x[:, :, info.prefix_tokens :]
    n, windows, heads, queries, keys = x.shape
    return x.transpose(0, 2, 1, 3, 4).reshape(n, heads, windows * queries, keys)


def attention_distances(info: TapInfo, image: Sequence[int]) -> Float[np.ndarray, "queries keys"]:
    """Returns the distances in px between the positions that `attention` connects.

    Args:
      info: description of a tap of attention weights.
      image: (height, width) in px.
    """
    if info.window is None:
        return patch_distances(info.grid, image)
    (rows, columns), (height, width) = info.window, image
    size = rows * height / info.grid[0], columns * width / info.grid[1]
    windows = math.prod(info.grid) // math.prod(info.window)
    return np.tile(patch_distances(info.window, size), (windows, 1))
