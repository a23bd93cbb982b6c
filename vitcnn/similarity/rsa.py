"""Representational similarity analysis (RSA): do two layers find the same images far apart?

The distances of all pairs of images in one layer are correlated with those in another
(Kriegeskorte, Mur and Bandettini 2008). Distances are Euclidean; Spearman's correlation uses their
ranks, so that any monotone function of them would do.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitcnn.numerics.statistics import spearman
from vitcnn.similarity.gram import EPS, squared_distances


def distances(grams: Float[Array, "layers n n"]) -> Float[Array, "layers pairs"]:
    """Returns the Euclidean distances of all pairs of images, the upper triangle row by row.

    Args:
      grams: linear Gram matrices, centred or not.
    """
    first, second = np.triu_indices(grams.shape[-1], 1)
    return jax.lax.map(lambda k: jnp.sqrt(squared_distances(k)[first, second]), grams)


def rsa_pearson(distances: Float[Array, "layers pairs"]) -> Float[Array, "layers layers"]:
    """Returns Pearson's correlation of the distances of every pair of layers.

    Layers in which all images are equally far apart, but for rounding, read NaN.
    """
    mean = jnp.mean(distances, axis=-1, keepdims=True)
    centred = distances - mean
    product = jnp.matmul(centred, centred.T, precision=jax.lax.Precision.HIGHEST)
    square = jnp.diagonal(product)
    known = square > (8 * EPS) ** 2 * distances.shape[-1] * mean[:, 0] ** 2
    size = jnp.sqrt(jnp.where(known, square, jnp.nan))
    return product / size[:, None] / size[None, :]


def rsa_spearman(distances: Float[Array, "layers pairs"]) -> Float[Array, "layers layers"]:
    """Returns Spearman's correlation of the distances of every pair of layers; NaN as Pearson's."""
    mean = jnp.mean(distances, axis=-1, keepdims=True)
    even = jnp.max(jnp.abs(distances - mean), axis=-1) <= 8 * EPS * mean[:, 0]
    matrix = rsa_pearson(jax.lax.map(ranks, distances))
    return jnp.where(even[:, None] | even[None, :], jnp.nan, matrix)


def ranks(values: Float[Array, " n"]) -> Float[Array, " n"]:
    """Returns the rank of every value, 1 the least; equal values share the mean of their ranks."""
    n = values.shape[0]
    order = jnp.argsort(values)
    ordered = values[order]
    place = jnp.arange(n)
    new = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    first = jax.lax.cummax(jnp.where(new, place, 0))
    end = jnp.concatenate([new[1:], jnp.ones(1, bool)])
    last = jax.lax.cummin(jnp.where(end, place, n), reverse=True)
    mean = 1 + (first + last).astype(jnp.float32) / 2
    return jnp.zeros(n, jnp.float32).at[order].set(mean)


def rank_correlation(
    a: Float[np.ndarray, "x y"], b: Float[np.ndarray, "x y"], *, within: bool
) -> float:
    """Returns Spearman's correlation of two maps of similarity over their pairs of layers.

    How far one measure orders the pairs of layers as another does. Pairs that are NaN in either map
    are left out.

    Args:
      a, b: maps of the same layers, on the host; they need not be symmetric.
      within: whether layers x are layers y. The diagonal is then left out, as a layer is always
        like itself.

    Returns:
      The correlation, NaN with fewer than two pairs or where one of the maps is even.

    Raises:
      ValueError: the maps are of different shapes, or not square within a model.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 2 or (within and a.shape[0] != a.shape[1]):
        raise ValueError(
            f"the maps are {list(a.shape)} and {list(b.shape)}: expected the same"
            + ", square within a model" * within
        )
    known = np.isfinite(a) & np.isfinite(b)
    if within:
        known &= ~np.eye(len(a), dtype=bool)
    return spearman(a[known], b[known])
