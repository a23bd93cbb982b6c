"""Centred kernel alignment (CKA): the cosine of two centred Gram matrices.

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X', L = Y Y', HSIC unbiased and
summed over groups of images before the ratio is taken (Nguyen, Raghu and Kornblith 2021, arXiv
2010.15327, eq. 2 and 3). It is 1 for representations that are rotations and scalings of each
other and, unlike the biased form, has mean 0 for independent ones, so that it can be slightly
negative.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from vitcnn.similarity import hsic
from vitcnn.similarity.gram import EPS

MIN_GROUP = 4  # the unbiased estimator divides by n - 3


def check_group(group: int, images: int, what: str = "unbiased HSIC") -> None:
    """Raises ValueError unless 4 <= group <= images."""
    if group < MIN_GROUP:
        raise ValueError(f"group = {group}: {what} needs groups of at least {MIN_GROUP} images")
    if images < group:
        raise ValueError(
            f"group = {group} but there are only {images} images; set group <= {images}"
        )


def alive(total: hsic.HsicSums) -> np.ndarray:
    """Returns for every layer whether its variation over images is more than rounding noise.

    A layer is dead when E|x - mean|^2 <= (8 eps)^2 E|x|^2 (the features hardly move), or when
    sqrt(HSIC(K, K)) <= 8 eps E|x - mean|^2 (nothing is left once the Gram matrix is centred), eps
    of float32. Layers that are not finite are not alive either. With an RBF kernel, energies are
    those of its features, in the proportions of those of the activations, and biased HSIC meets the
    second criterion whenever it meets the first.

    Args:
      total: sums over all groups, on the host in float64.
    """
    energy, square = total.energy / total.images, total.square / total.images
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(np.diagonal(total.hsic) / total.pairs)
        return (energy > (8 * EPS) ** 2 * square) & (spread > 8 * EPS * energy)


def from_sums(total: hsic.HsicSums, names: Sequence[str]) -> Float[np.ndarray, "layers layers"]:
    """Returns the CKA matrix of summed HSIC, NaN for dead layers, which a warning names.

    Args:
      total: sums over all groups, on the host in float64.
      names: names of the layers, for the warnings.
    """
    live, finite = alive(total), np.isfinite(total.energy)
    warn_of("do not vary over the images beyond rounding noise", names, ~live & finite, ["CKA"])
    warn_of("have NaN or infinite activations", names, ~finite, ["CKA"])
    return ratio(total)


def ratio(total: hsic.HsicSums) -> Float[np.ndarray, "layers layers"]:
    """Returns the CKA matrix of summed HSIC, NaN in the rows and columns of dead layers.

    Args:
      total: sums over all groups, on the host in float64.
    """
    norm = np.sqrt(np.where(alive(total), np.diagonal(total.hsic), np.nan))
    return total.hsic / norm[:, None] / norm[None, :]


def warn_of(
    what: str, names: Sequence[str], which: Bool[np.ndarray, " layers"], measures: Sequence[str]
) -> None:
    """Warns of layers without a value of some measures, by name, if there are any."""
    if which.any():
        listed = ", ".join(name for name, bad in zip(names, which, strict=True) if bad)
        undefined = ", ".join(measures) + (" is NaN" if len(measures) == 1 else " are NaN")
        warnings.warn(f"layers that {what}, {undefined}: {listed}", stacklevel=4)


def match(
    matrix: Float[np.ndarray, "layers others"], depth: Float[np.ndarray, " others"]
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """Returns for every layer the depth of the most similar other layer, and their CKA.

    Args:
      matrix: CKA of layers with the layers of another model; NaN where one is dead.
      depth: depth of each of the others, in [0, 1].

    Returns:
      (depth, CKA), NaN for a layer without a live match. This is the correspondence behind "60
      lower ResNet layers match the lowest quarter of the ViT layers" (paper: Fig. 2).
    """
    known = np.isfinite(matrix)
    best = np.argmax(np.where(known, matrix, -np.inf), axis=1)
    some = known.any(axis=1)
    rows = np.arange(len(matrix))
    return np.where(some, depth[best], np.nan), np.where(some, matrix[rows, best], np.nan)
