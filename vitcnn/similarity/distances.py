"""Distances of images in a layer, each exact to some fourteen digits, and what is read off them.

Every measure but linear CKA is a function of the squared distances of all pairs of images. A Gram
matrix in float32 loses them: images of one tight group differ from each other by less than its
rounding error, and the roots of small eigenvalues are mostly noise. Therefore `squared` works in
float64 on the device, from the features as they are stored. The host does the rest in float64.

Pairs (i, j), i < j, are in the order of `np.triu_indices(n, 1)` everywhere.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Double
from vitcnn.similarity.gram import Gram, centre, exponent_of, medoid, power_of_two

# Pairs whose squared distance is a smaller share of their squared distances from the shift than
# this are measured again: the Gram matrix in float64 leaves 14 digits of the others.
NEAR = 0.05
# Squared distances count as equal if they differ by less than this share, which rounding decides.
TIE = 2e-14
# Eigenvalues below this share of the greatest are the rounding error of float64.
NOISE = 16 * float(np.finfo(np.float64).eps)
MANY = 8  # images near another image from which a Gram matrix is cheaper than direct sums
CHUNK = 4096  # features that are in float64 at a time


def squared(
    x: Float[Array, "n ..."], gram: Gram, low: Float[Array, "n ..."] | None = None
) -> Double:
    """Returns |x_i - x_j|^2 of all images, times a power of two, in 48 digits [n, n].

    The diagonal means nothing.

    The distances come from a Gram matrix in float64, shifted by a typical image. It loses the
    digits of images that are much nearer to each other than to that image. They are measured
    again with one of them as the shift: by another Gram matrix if there are many (a tight group),
    else directly, as sums of squared differences. The program takes float64 whatever the global
    flag of JAX says. CPUs and data centre GPUs have it; TPUs emulate it.

    Args:
      x: features of n images, of any floating type.
      gram: their Gram matrix from `gram.linear`. It only gives the shift and the scale.
      low: what is missing from features that are not float32 (see `Double`).
    """
    n = len(x)
    parts = [a.reshape(n, -1) for a in (x, low) if a is not None]
    # Distances from the typical image are about 1; the greatest stays far below the end of float32.
    size = jnp.maximum(exponent_of(jnp.median(jnp.diagonal(gram.matrix))), -100)
    scale = power_of_two(-((gram.exponent + size) // 2))
    typical = medoid(gram.matrix)
    # Written out in the program for every layer, masks would make it a hundred megabytes.
    own, upper = jnp.eye(n, dtype=bool), jnp.triu(jnp.ones((n, n), bool), 1)
    with jax.enable_x64(True):

        def total(of_slice, start):
            """Returns the sum of a function over slices of the features."""
            slices, rest = divmod(parts[0].shape[1], CHUNK)

            def wide(cut):
                return sum(cut(a).astype(jnp.float64) for a in parts)

            def add(i, so_far):
                cut = functools.partial(
                    jax.lax.dynamic_slice_in_dim, start_index=i * CHUNK, slice_size=CHUNK, axis=1
                )
                return so_far + of_slice(wide(cut))

            if rest:
                start = start + of_slice(wide(lambda a: a[:, slices * CHUNK :]))
            if slices:
                start = jax.lax.fori_loop(jnp.int32(0), jnp.int32(slices), add, start)
            return start

        def by_gram(image, square, reach):
            """Measures all pairs that are nearer to this image than to the shifts before it."""

            def product(wide):
                y = (wide - wide[image]) * scale
                highest = jax.lax.Precision.HIGHEST
                return jax.lax.dot_general(y, y, (((1,), (1,)), ((), ())), precision=highest)

            k = total(product, jnp.zeros((n, n), jnp.float64))
            size = jnp.sum(jnp.where(own, k, 0.0), axis=1)
            both = size[:, None] + size[None, :]
            better = ~(both >= reach)
            return jnp.where(better, both - 2 * k, square), jnp.where(better, both, reach)

        def directly(image, square, reach):
            """Measures all pairs with this image."""
            row = total(
                lambda wide: jnp.sum(jnp.square((wide - wide[image]) * scale), axis=1),
                jnp.zeros(n, jnp.float64),
            )
            here = own[image]
            put = lambda a: jnp.where(here[:, None], row, jnp.where(here, row[:, None], a))  # noqa: E731
            return put(square), put(reach)

        def lost(square, reach):
            """Returns the pairs (i, j), i < j, that are too near for the shift that they had."""
            return (square < NEAR * reach) & upper

        def again(state):
            pairs = lost(*state)
            with jax.enable_x64(False):  # indices of 64 bits cannot be lowered outside the context
                count = jnp.sum(pairs | pairs.T, axis=1)
                image = jnp.argmax(count).astype(jnp.int32)
                many = jnp.max(count) >= MANY
            return jax.lax.cond(many, by_gram, directly, image, *state)

        nothing = jnp.full((n, n), jnp.inf, jnp.float64)
        state = by_gram(typical, nothing, nothing)
        square, _ = jax.lax.while_loop(lambda state: jnp.any(lost(*state)), again, state)
        return Double.of(square)


def stacked(layers: Sequence[Double]) -> Double:
    """Returns the squared distances [layers, pairs] of all layers, each from `squared`."""
    first, second = np.triu_indices(len(layers[0].high), 1)
    return jax.tree.map(lambda *layers: jnp.stack(layers)[:, first, second], *layers)


def as_matrix(pairs: Float[np.ndarray, " pairs"], n: int) -> Float[np.ndarray, "n n"]:
    """Returns the symmetric matrix of a number for each pair of images, 0 on the diagonal."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = pairs
    return matrix + matrix.T


def gram_matrix(squared: Float[np.ndarray, " pairs"], n: int) -> Float[np.ndarray, "n n"]:
    """Returns the centred linear Gram matrix of n images with these squared distances."""
    return centre(-as_matrix(squared, n) / 2)


def ranks(squared: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Returns the ranks of squared distances, from 1; equal ones share their mean rank."""
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
