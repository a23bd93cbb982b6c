"""Distances of images in a layer, each exact to some fourteen digits, and what is read off them.

Every measure but linear CKA is a function of the squared distances of all pairs of images. A Gram
matrix in float32 loses them: images of one tight group differ from each other by less than its
rounding error, and the roots of small eigenvalues are mostly noise. Therefore `squared` works in
float64 on the device, from the features as they are stored. The host does the rest in float64.

Pairs (i, j), i < j, are in the order of `np.triu_indices(n, 1)` everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Double
from vitcnn.similarity.gram import Gram, centre, exponent_of, ldexp, medoid

# Pairs whose squared distance is a smaller share of their squared distances from the shift than
# this are measured directly: the Gram matrix in float64 leaves 14 digits of the others.
NEAR = 0.05
# Squared distances count as equal if they differ by less than this share, which rounding decides.
TIE = 2e-14
# Eigenvalues below this share of the greatest are the rounding error of float64.
NOISE = 16 * float(np.finfo(np.float64).eps)
CHUNK = 4096  # features that are in float64 at a time


def squared(
    x: Float[Array, "n ..."], gram: Gram, low: Float[Array, "n ..."] | None = None
) -> Double:
    """Returns |x_i - x_j|^2 of all pairs of images, times a power of two, in 48 digits [pairs].

    The distances come from a Gram matrix in float64, shifted by a typical image. Images that have
    another image much nearer than that are measured directly, as sums of squared differences; each
    such image costs one more pass over the features. The program takes float64 whatever the global
    flag of JAX says. CPUs and data centre GPUs have it; TPUs emulate it.

    Args:
      x: features of n images, of any floating type.
      gram: their Gram matrix from `gram.linear`. It only gives the shift and the scale.
      low: what is missing from features that are not float32 (see `Double`).
    """
    n = len(x)
    parts = [a.reshape(n, -1) for a in (x, low) if a is not None]
    image = medoid(gram.matrix)
    # Distances from the typical image are about 1; the greatest stays far below the end of float32.
    size = jnp.maximum(exponent_of(jnp.median(jnp.diagonal(gram.matrix))), -100)
    exponent = -((gram.exponent + size) // 2)
    eye = np.eye(n, dtype=bool)
    with jax.enable_x64(True):

        def less(part, i):
            """Returns the features, all or a slice, less the features of image i, in scale."""
            wide = sum(a.astype(jnp.float64) for a in part)
            return ldexp(wide - wide[i], exponent)

        def product(start, width):
            y = less([jax.lax.dynamic_slice_in_dim(a, start, width, 1) for a in parts], image)
            return jnp.matmul(y, y.T, precision=jax.lax.Precision.HIGHEST)

        slices, rest = divmod(parts[0].shape[1], CHUNK)
        k = product(slices * CHUNK, rest) if rest else jnp.zeros((n, n), jnp.float64)
        if slices:
            k = jax.lax.fori_loop(0, slices, lambda i, k: k + product(i * CHUNK, CHUNK), k)
        both = jnp.diagonal(k)[:, None] + jnp.diagonal(k)[None, :]
        square = both - 2 * k
        near = jnp.any((square < NEAR * both) & np.triu(~eye), axis=1)
        order = jnp.argsort(~near)

        def directly(turn, square):
            i = order[turn]
            row = jnp.sum(jnp.square(less(parts, i)), axis=1)
            return square.at[i, :].set(row).at[:, i].set(row)

        square = jax.lax.fori_loop(0, jnp.sum(near), directly, square)
        whole = Double.of(square)
    first, second = np.triu_indices(n, 1)
    return Double(whole.high[first, second], whole.low[first, second])


def stacked(layers: Sequence[Double]) -> Double:
    """Returns the squared distances of all layers [layers, pairs]."""
    return jax.tree.map(lambda *rows: jnp.stack(rows), *layers)


def as_matrix(pairs: Float[np.ndarray, " pairs"], n: int) -> Float[np.ndarray, "n n"]:
    """Returns the symmetric matrix of a number for each pair of images, 0 on the diagonal."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = pairs
    return matrix + matrix.T


def gram_matrix(squared: Float[np.ndarray, " pairs"], n: int) -> Float[np.ndarray, "n n"]:
    """Returns the centred linear Gram matrix of n images with these squared distances."""
    return centre(-as_matrix(squared, n) / 2)


def ranks(squared: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Returns the ranks, from 1, of squared distances; equal ones, up to `TIE`, share their mean."""
    order = np.argsort(squared)
    ordered = squared[order]
    start = np.append(True, ordered[1:] > ordered[:-1] * (1 + TIE))
    first = np.flatnonzero(start)
    last = np.append(first[1:], len(squared)) - 1
    ranks = np.empty(len(squared))
    ranks[order] = ((first + last) / 2 + 1)[np.cumsum(start) - 1]
    return ranks


def nearest(squared: Float[np.ndarray, " pairs"], n: int, k: int) -> Bool[np.ndarray, "n n"]:
    """Returns at (i, j) whether j is one of the k nearest images of image i, itself excluded.

    Of images that are equally near, up to `TIE`, the earlier is taken.
    """
    square = as_matrix(squared, n)
    np.fill_diagonal(square, np.inf)
    last = np.partition(square, k - 1, axis=1)[:, k - 1 : k]
    nearer = square < last * (1 - TIE)
    equal = ~nearer & (square <= last * (1 + TIE))
    left = k - nearer.sum(axis=1, keepdims=True)
    return nearer | equal & (np.cumsum(equal, axis=1) <= left)


@dataclasses.dataclass(frozen=True)
class Spectra:
    """Eigenvalues and eigenvectors of centred Gram matrices, the greatest first.

    Attributes:
      values: squared singular values of the centred features; those below `NOISE` of the greatest
        read 0.
      vectors: [layer, :, i] is the i-th principal component of the images, of unit length.
    """

    values: Float[np.ndarray, "layers n"]
    vectors: Float[np.ndarray, "layers n n"]

    @classmethod
    def of(cls, squared: Float[np.ndarray, "layers pairs"], n: int) -> Spectra:
        """Returns the spectra of layers with these squared distances of n images."""
        pairs = [np.linalg.eigh(gram_matrix(row, n)) for row in squared]
        values = np.stack([values[::-1] for values, _ in pairs])
        vectors = np.stack([vectors[:, ::-1] for _, vectors in pairs])
        return cls(np.where(values > NOISE * values[:, :1], values, 0), vectors)

    def rank(self, noise: Float[np.ndarray, " layers"]) -> Int[np.ndarray, " layers"]:
        """Returns the number of directions in which the features of a layer vary.

        Args:
          noise: share of the variation of each layer that may be rounding noise, see `gram.noise`.
        """
        least = noise * self.values.sum(axis=1) / self.values.shape[1]
        return np.sum(self.values > least[:, None], axis=1)
