"""Mutual nearest neighbours: do two layers find the same images alike?

The share of the k nearest images (Euclidean distance, the image itself excluded) that two layers
have in common, averaged over images (Huh et al. 2024, mutual k-nearest-neighbour alignment). It
looks at the nearest images only, where CKA weighs the distant ones most. The neighbours are those
within the n images of a group: independent layers have k / (n - 1) of them in common.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.similarity.gram import squared_distances


def check_neighbours(k: int, images: int) -> None:
    """Raises ValueError unless 1 <= k <= images - 2 (with k = images - 1 all layers agree)."""
    if not 1 <= k <= images - 2:
        raise ValueError(
            f"neighbours = {k}: expected 1 <= neighbours <= {images - 2} in a group of {images} "
            "images"
        )


def nearest(grams: Float[Array, "layers n n"], k: int) -> Float[Array, "layers n n"]:
    """Returns for every layer 1 at (i, j) where j is one of the k nearest images of i, else 0.

    Args:
      grams: linear Gram matrices, centred or not.
      k: number of neighbours; of equally near images the earlier is taken.
    """
    n = grams.shape[-1]

    def one(gram):
        distance = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, squared_distances(gram))
        _, found = jax.lax.top_k(-distance, k)
        return jnp.zeros((n, n), jnp.float32).at[jnp.arange(n)[:, None], found].set(1)

    return jax.lax.map(one, grams)


def neighbours(nearest: Float[Array, "layers n n"], k: int) -> Float[Array, "layers layers"]:
    """Returns the mean share of their k nearest images that two layers have in common.

    Args:
      nearest: from the function of that name.
      k: number of neighbours.
    """
    layers, n, _ = nearest.shape
    flat = nearest.reshape(layers, -1)
    return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST) / (n * k)
