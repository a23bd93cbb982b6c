"""The layout of a tap: which tokens it has, and where the cells of its grid lie in the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Array, Float

from vitcnn.lookup import check_name
from vitcnn.taps import TapInfo

TOKENS = ("all", "class", "spatial")


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


def patch_distances(
    grid: tuple[int, int], image: tuple[int, int]
) -> Float[np.ndarray, "patches patches"]:
    """Returns the distance in px of the centres of every pair of patches, row by row.

    Args:
      grid: (rows, columns) of patches.
      image: (height, width) of the image in px.
    """
    rows, columns = (np.arange(n) * size / n for n, size in zip(grid, image, strict=True))
    y, x = (axis.reshape(-1) for axis in np.meshgrid(rows, columns, indexing="ij"))
    return np.hypot(y[:, None] - y[None, :], x[:, None] - x[None, :])


def check(tokens: str, infos: Iterable[TapInfo]) -> None:
    """Raises ValueError unless `tokens` is one of `TOKENS` and some tap has the tokens asked for.

    Args:
      tokens: the config field.
      infos: of the taps of the analysis.
    """
    check_name("tokens", tokens, TOKENS)
    if tokens == "class" and not any(info.class_token for info in infos):
        raise ValueError(
            'tokens = "class", but none of the taps has a class token; set tokens = "all" or '
            '"spatial", or choose a model that has one'
        )


def cut(info: TapInfo, tokens: str) -> str:
    """Returns `tokens`, or "all" for a tap that has no such part and stays whole.

    These are taps without prefix tokens (maps of a ResNet, pooled features, logits) and, for
    "class", taps without a class token, such as those of a ViT that has registers but no class
    token.
    """
    has = info.class_token if tokens == "class" else info.prefix_tokens
    return tokens if has else "all"


def take(x: Float[Array, "n ..."], info: TapInfo, tokens: str) -> Float[Array, "n ..."]:
    """Returns the part of a tap that belongs to the tokens asked for.

    Args:
      x: the tap.
      info: what is known of it; see `cut` for the taps that are returned whole.
      tokens: "all"; "class", the first token; or "spatial", all but the prefix tokens (class,
        distillation and register tokens). Of attention weights these are the queries.
    """
    tokens = cut(info, tokens)
    if tokens == "all":
        return x
    axis = 2 if info.role == "attention_weights" else 1
    part = slice(0, 1) if tokens == "class" else slice(info.prefix_tokens, None)
    return x[(slice(None),) * axis + (part,)]
