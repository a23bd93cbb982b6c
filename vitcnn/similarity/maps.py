"""Maps of similarity: what the matrix of every layer with every layer says, on the host."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float

from vitcnn.numerics.arrays import Names
from vitcnn.numerics.statistics import spearman


def match(
    matrix: Float[np.ndarray, "layers others"], depth: Float[np.ndarray, " others"]
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """Returns for every layer the depth of the most similar other layer, and their similarity.

    Args:
      matrix: similarity of layers with the layers of another model; NaN where one is dead.
      depth: depth of each of the others, in [0, 1].

    Returns:
      (depth, similarity), NaN for a layer without a live match. This is the correspondence behind
      "60 lower ResNet layers match the lowest quarter of the ViT layers" (paper: Fig. 2).
    """
    finite = np.isfinite(matrix)
    best = np.argmax(np.where(finite, matrix, -np.inf), axis=1)
    matched = finite.any(axis=1)
    rows = np.arange(len(matrix))
    return np.where(matched, depth[best], np.nan), np.where(matched, matrix[rows, best], np.nan)


def rank_correlation(
    a: Float[np.ndarray, "x y"], b: Float[np.ndarray, "x y"], *, within: bool
) -> float:
    """Returns Spearman's correlation of two maps of similarity over their pairs of layers.

    It says how far one measure orders the pairs of layers as another does. Pairs that are NaN in
    either map are left out.

    Args:
      a, b: maps of the same layers, on the host; they need not be symmetric.
      within: whether layers x are layers y. The diagonal is then left out, because a layer is
        always like itself.

    Returns:
      The correlation, NaN with fewer than two pairs or if all values of a map are equal.

    Raises:
      ValueError: the maps are of different shapes, or not square within a model.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 2 or (within and a.shape[0] != a.shape[1]):
        raise ValueError(
            f"the maps are {list(a.shape)} and {list(b.shape)}: expected the same shape"
            + ", square within a model" * within
        )
    pairs = np.isfinite(a) & np.isfinite(b)
    if within:
        pairs &= ~np.eye(len(a), dtype=bool)
    return spearman(a[pairs], b[pairs])


def warn_undefined(
    why: str, names: Names, which: Bool[np.ndarray, " layers"], measures: Names
) -> None:
    """Warns of the layers, by name, for which some measures are NaN, if there are any.

    Args:
      why: predicate of the layers, such as "do not vary".
      names: names of all layers.
      which: the layers concerned.
      measures: what is NaN.
    """
    if which.any():
        listed = ", ".join(name for name, bad in zip(names, which, strict=True) if bad)
        undefined = ", ".join(measures) + (" is NaN" if len(measures) == 1 else " are NaN")
        warnings.warn(f"layers that {why}, {undefined}: {listed}", stacklevel=4)
