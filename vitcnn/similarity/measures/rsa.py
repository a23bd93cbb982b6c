"""Representational similarity analysis (RSA): do two layers find the same images far apart?

The distances of all pairs of images in one layer are correlated with the distances in another
(Kriegeskorte, Mur and Bandettini 2008). Distances are Euclidean. Spearman's correlation uses their
ranks, and is thus the same for any monotone function of the distances. Independent layers read 0
in the mean.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.stats import rankdata
from jaxtyping import Float

from vitcnn.numerics.arrays import Array
from vitcnn.similarity.gram import EPS
from vitcnn.similarity.measure import GroupMean


def rsa_pearson(distances: Float[Array, "layers pairs"]) -> Float[Array, "layers layers"]:
    """Returns Pearson's correlation of the distances of every pair of layers.

    Layers in which all images are equally far apart, up to rounding, read NaN.
    """
    mean = jnp.mean(distances, axis=-1, keepdims=True)
    centred = distances - mean
    product = jnp.matmul(centred, centred.T, precision=jax.lax.Precision.HIGHEST)
    square = jnp.diagonal(product)
    varies = square > (8 * EPS) ** 2 * distances.shape[-1] * mean[:, 0] ** 2
    size = jnp.sqrt(jnp.where(varies, square, jnp.nan))
    return product / size[:, None] / size[None, :]


def rsa_spearman(distances: Float[Array, "layers pairs"]) -> Float[Array, "layers layers"]:
    """Returns Spearman's correlation of the distances of every pair of layers.

    Equal distances share the mean of their ranks. Layers in which all images are equally far apart,
    up to rounding, read NaN.
    """
    mean = jnp.mean(distances, axis=-1, keepdims=True)
    even = jnp.max(jnp.abs(distances - mean), axis=-1) <= 8 * EPS * mean[:, 0]
    matrix = rsa_pearson(jax.lax.map(rankdata, distances))
    return jnp.where(even[:, None] | even[None, :], jnp.nan, matrix)


MEASURES = (
    GroupMean(
        name="rsa_pearson",
        title="RSA, Pearson",
        long_name="RSA, Pearson correlation of distances",
        chance=0.0,
        matrix=lambda layers, options: rsa_pearson(layers.distances),
    ),
    GroupMean(
        name="rsa_spearman",
        title="RSA, Spearman",
        long_name="RSA, Spearman correlation of distances",
        chance=0.0,
        matrix=lambda layers, options: rsa_spearman(layers.distances),
    ),
)
