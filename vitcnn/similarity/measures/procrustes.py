"""Orthogonal Procrustes similarity: how well one representation rotates onto another.

For centred features of unit Frobenius norm the Procrustes distance is d^2 = min |X - Y R|^2 =
2 - 2 |X'Y|_*, where the minimum is over rotations R and |.|_* is the nuclear norm (the sum of the
singular values). The similarity is |X'Y|_* = 1 - d^2 / 2, in [0, 1]: it is 1 for representations
that are rotations, shifts and scalings of each other. Independent representations read well above 0
where they have many directions for the number of images. Source: Schoenemann 1966; Ding, Denain and
Steinhardt 2021.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vitcnn.numerics.arrays import Array
from vitcnn.similarity.gram import Spectra
from vitcnn.similarity.measure import GroupMean


def procrustes(spectra: Spectra) -> Float[Array, "layers layers"]:
    """Returns the Procrustes similarity of every pair of layers.

    |X'Y|_* equals |F'G|_*, where F F' and G G' are the Gram matrices. F is the eigenvectors of a
    Gram matrix times the roots of its eigenvalues, computed once a layer. The singular values of
    one n x n matrix for each pair cannot be avoided: for L layers they take O(L^2 n^3), which
    dominates the cost above some hundred images a group.

    Args:
      spectra: of the linear Gram matrices, see `gram.spectra`.
    """
    layers = len(spectra.values)
    energy = jnp.sum(spectra.values, axis=-1, keepdims=True)
    factors = spectra.vectors * jnp.sqrt(spectra.values / energy)[:, None, :]

    def nuclear_norm(pair):
        x, y = factors[pair[0]], factors[pair[1]]
        product = jnp.matmul(x.T, y, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(jnp.linalg.svd(product, compute_uv=False))

    first, second = np.triu_indices(layers)
    values = jax.lax.map(nuclear_norm, (jnp.asarray(first), jnp.asarray(second)))
    matrix = jnp.zeros((layers, layers), values.dtype).at[first, second].set(values)
    return matrix.at[second, first].set(values)


MEASURES = (
    GroupMean(
        name="procrustes",
        title="Procrustes",
        long_name="Procrustes similarity",
        matrix=lambda layers, options: procrustes(layers.spectra),
    ),
)
