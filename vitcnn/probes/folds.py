"""Folds: linear maps whose R^2 is measured on images that they were not fitted on, fold by fold.

An image is in fold h(index) mod `folds`, where h is the finaliser of MurmurHash3 (multiply, shift
and xor, 32 bits) and index is the position of the image in the source. Hence a fold depends neither
on groups nor on the order of the images, and does not follow the period of a source that is sorted
by class. The fits themselves are in `vitcnn.numerics.ridge.over_folds`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float, Int

from vitcnn.numerics.arrays import Array
from vitcnn.numerics.ridge import fold_error, fold_mean
from vitcnn.results.datasets import relative_depth, variable

R2 = "R\u00b2 on held-out images"
PENALTY = "penalty, of the mean eigenvalue"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      folds: number of folds: one to test on, one to choose the penalty on, the others to fit.
      penalties: penalties to choose from, in units of the mean eigenvalue; penalties smaller than
        the defaults are lost in rounding.
    """

    folds: int = 4
    penalties: tuple[float, ...] = tuple(10.0**k for k in range(-5, 3))


def check_folds(folds: int, penalties: Sequence[float]) -> None:
    """Raises ValueError for too few folds, or penalties that are not above 0."""
    if folds < 3:
        raise ValueError(
            f"folds = {folds}: at least 3 folds are needed, to fit, to choose the penalty and to "
            "test"
        )
    if not penalties or min(penalties) <= 0:
        raise ValueError(
            f"penalties = {tuple(penalties)}: expected one or more numbers, all above 0"
        )


def fold_of(index: Int[Array, " n"], folds: int) -> Int[Array, " n"]:
    """Returns the fold of each image: a hash of its position in the source, modulo `folds`."""
    h = index.astype(jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> shift)) * jnp.uint32(factor)
    return (h % folds).astype(jnp.int32)


def dataset(
    scores: Float[np.ndarray, "layers ... folds"],
    penalties: Float[np.ndarray, "layers ... folds"],
    coords: Mapping[str, Any],
    mean: Float[np.ndarray, "layers ..."] | None = None,
    error: Float[np.ndarray, "layers ..."] | None = None,
) -> xarray.Dataset:
    """Returns r2 with its standard error, r2_fold and penalty, by layer and what `coords` names.

    Args:
      scores: R^2 of each held-out fold.
      penalties: the penalty that was chosen for each.
      coords: the coordinates of all dimensions but the fold, in order; the first is "layer".
      mean: over folds; by default over those that have a score.
      error: standard error of the mean, by default over the same folds.
    """
    dims = tuple(coords)
    mean = fold_mean(scores) if mean is None else mean
    error = fold_error(scores) if error is None else error
    return xarray.Dataset(
        {
            "r2": variable(dims, mean, R2),
            "r2_standard_error": variable(dims, error, f"standard error of {R2}"),
            "r2_fold": variable((*dims, "fold"), scores, R2, estimate=False),
            "penalty": variable((*dims, "fold"), penalties, PENALTY, estimate=False),
        },
        {
            **coords,
            "fold": np.arange(scores.shape[-1]),
            "depth": variable("layer", relative_depth(len(scores)), "relative depth", None),
        },
    )
