"""Mutual nearest neighbours: do two layers find the same images alike?

The share of the k nearest images (Euclidean distance, the image itself excluded) that two layers
have in common, averaged over images (Huh et al. 2024, mutual k-nearest-neighbour alignment). This
measure looks at the nearest images only, where CKA weighs the distant ones most. The neighbours are
those within the n images of a group: independent layers have k / (n - 1) of them in common.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vitcnn.numerics.arrays import Array
from vitcnn.similarity.gram import squared_distances
from vitcnn.similarity.measure import GroupMean, Options


def check(options: Options, images: int, sizes: Mapping[str, int]) -> Options:
    """Returns the options.

    Raises:
      ValueError: `neighbours` is not between 1 and images - 2 (with images - 1 all layers agree).
    """
    k = options["neighbours"]
    if not 1 <= k <= images - 2:
        raise ValueError(
            f"neighbours = {k}: expected 1 <= neighbours <= {images - 2} in a group of {images} "
            "images"
        )
    return options


def nearest(grams: Float[Array, "layers n n"], k: int) -> Float[Array, "layers n n"]:
    """Returns for every layer 1 at (i, j) where j is one of the k nearest images of i, else 0.

    Args:
      grams: linear Gram matrices, centred or not.
      k: number of neighbours; of equally near images the earlier is taken.
    """
    n = grams.shape[-1]

    def of_layer(gram):
        distance = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, squared_distances(gram))
        _, indices = jax.lax.top_k(-distance, k)
        return jnp.zeros((n, n), jnp.float32).at[jnp.arange(n)[:, None], indices].set(1)

    return jax.lax.map(of_layer, grams)


def neighbours(nearest: Float[Array, "layers n n"], k: int) -> Float[Array, "layers layers"]:
    """Returns the mean share of their k nearest images that two layers have in common.

    Args:
      nearest: from the function `nearest`.
      k: number of neighbours.
    """
    layers, n, _ = nearest.shape
    flat = nearest.reshape(layers, -1)
    return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST) / (n * k)


MEASURES = (
    GroupMean(
        name="neighbours",
        title="nearest neighbours",
        long_name="share of nearest neighbours in common",
        options={"neighbours": 10},  # number of nearest images
        check=check,
        least_images=lambda options: options["neighbours"] + 2,
        matrix=lambda layers, options: neighbours(
            nearest(layers.gram_matrices, options["neighbours"]), options["neighbours"]
        ),
        numbers=lambda images, options: {"inverse_size": images / (images - 1)},
        attributes=lambda total, options: {
            "neighbours_chance": options["neighbours"] * total["inverse_size"] / total["images"]
        },
    ),
)
