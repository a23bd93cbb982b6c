"""The features that a linear probe reads at a tap: one vector an image, or one at each position.

The paper (section 2.6 of its method; Figs 11, 13, D.4, F.1 to F.3) reads the class token, a mean
over tokens, the first token, or each token by itself. Maps of a ResNet are first split into
patches, which are flattened into channels, so that the number of channels gets near that of the
last layer; then they are averaged to the grid of the last layer. Every layer then has the same
positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Float

from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.tap_layout import split
from vitcnn.taps import TapInfo

FEATURES = ("class", "spatial", "all", "first", "tokens")  # that a config can name
WHOLE = "whole"  # the feature of a tap without positions, such as "pooled": all of the tap
ORDER = (*FEATURES, WHOLE)  # of the features in a Result
POOLED = ("first", "tokens")  # these need the grid of the last layer


def available(info: TapInfo, features: Sequence[str]) -> tuple[str, ...]:
    """Returns the features of a list that a tap has.

    Args:
      info: the tap.
      features: some of `FEATURES`.

    Raises:
      ValueError: an unknown feature (with the nearest names), a tap whose array is not one vector
        at each position, or one that has none of the features.
    """
    for feature in features:
        check_name("feature", feature, FEATURES)
    if info.grid is None:
        return (WHOLE,)
    channels(info)
    has = {"class": info.class_token, "all": info.prefix_tokens > 0}  # else "all" is "spatial"
    present = tuple(f for f in FEATURES if f in features and has.get(f, True))
    if not present:
        raise ValueError(
            f"{info.name} has none of the features {tuple(features)}: a tap without a class token "
            'has only "spatial", "first" and "tokens" (without registers "all" would be "spatial"),'
            ' and "tokens" only where the field token_taps allows it; change features, or taps, or '
            "models"
        )
    return present


def channels(info: TapInfo) -> int:
    """Returns the length of the vector at each position of a tap that has a grid.

    Raises:
      ValueError: the tap does not have one vector at each position, for example attention weights.
    """
    if info.layout == "map":
        return math.prod(info.shape[2:])
    tokens = info.prefix_tokens + info.grid[0] * info.grid[1]
    if info.layout != "tokens" or info.shape[0] != tokens:
        raise ValueError(
            f"{info.name} is {list(info.shape)} for one image, but a probe reads one vector at each"
            f" position of the grid {list(info.grid)}; choose other taps in the field taps"
        )
    return math.prod(info.shape[1:])


def last(infos: Sequence[TapInfo]) -> tuple[tuple[int, int] | None, int]:
    """Returns (grid, channels) of the last tap that has a grid; (None, 0) if none has."""
    gridded = [info for info in infos if info.grid is not None]
    return (gridded[-1].grid, channels(gridded[-1])) if gridded else (None, 0)


def patch_side(info: TapInfo, patch: int | str, grid: tuple[int, int] | None, most: int) -> int:
    """Returns the side of the patches into which a map is split, in positions.

    Args:
      info: the tap. The side is 1 for any tap but a map of a convolutional network.
      patch: the side; or "auto", the largest side that divides the grid of the tap, gives at most
        `most` channels, and leaves a grid not smaller than the grid of the last layer. For
        ResNet-50 that is 2, 2, 1, 1 by stage.
      grid: grid of the last layer that has one; None if no layer has.
      most: number of channels of the last layer.

    Raises:
      ValueError: `patch` is not a side or "auto", or does not divide the grid.
    """
    if patch != "auto" and (isinstance(patch, str) or patch < 1 or patch != int(patch)):
        raise ValueError(f'patch = {patch!r}: expected "auto" or a side of 1 or more')
    if info.layout != "map":
        return 1
    if patch == "auto":
        fits = [
            s
            for s in range(1, min(info.grid) + 1)
            if not any(n % s for n in info.grid)
            and channels(info) * s * s <= most
            and all(n // s >= m for n, m in zip(info.grid, grid, strict=True))
        ]
        return max(fits, default=1)
    if any(n % patch for n in info.grid):
        raise ValueError(
            f"patch = {patch} does not divide the grid {list(info.grid)} of {info.name}; set patch "
            'to "auto" or 1'
        )
    return int(patch)


def take(
    x: Float[Array, "n ..."], info: TapInfo, feature: str, side: int, grid: tuple[int, int] | None
) -> Float[Array, "n ..."]:
    """Returns a feature of a tap in float32: [n, channels], for "tokens" [n, positions, channels].

    Args:
      x: the tap.
      info: description of the tap.
      feature: a feature that `available` returned.
      side: side of the patches, from `patch_side`.
      grid: grid of the last layer.

    Raises:
      ValueError: the grid of the tap is not a multiple of the grid of the last layer.
    """
    n = len(x)
    x = x.astype(jnp.float32)
    if feature == WHOLE:
        return x.reshape(n, -1)
    if feature == "class":
        return x[:, 0].reshape(n, -1)
    if feature == "all":
        return x.reshape(n, x.shape[1], -1).mean(1)
    rows, columns = info.grid
    coarse = rows // side, columns // side
    x = split(info.positions(x).reshape(n, rows, columns, -1), coarse).reshape(n, *coarse, -1)
    if feature == "spatial":
        return x.mean((1, 2))
    if coarse[0] % grid[0] or coarse[1] % grid[1]:
        raise ValueError(
            f"the grid of {info.name} in patches of {side}, {list(coarse)}, cannot be averaged to "
            f"the grid of the last layer, {list(grid)}; change patch or taps, or leave "
            f"{' and '.join(POOLED)} out of features"
        )
    x = split(x, grid).mean((3, 4))
    return x[:, 0, 0] if feature == "first" else x.reshape(n, -1, x.shape[-1])
