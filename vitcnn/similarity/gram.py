"""Gram matrices of a layer, exact in float32 for features of any offset and scale.

Centring removes any shift of the features, K -> K + a 1' + 1 a', so the features may be shifted
freely before the product. The shift is the features of one image, which lies near the mean compared
with the offset of the features; float32 then loses nothing to a large mean, at the price of one
pass over the activation. If that image is an outlier, or the scale leaves float32, the Gram matrix
itself shows it, and the product is computed once more with a typical image and a scale of its own.
The distances of images are not read off this matrix; see `vitcnn.similarity.distances`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Scaled

KERNELS = ("linear", "rbf")
EPS = float(np.finfo(np.float32).eps)  # whatever the type of the activations: Grams are float32
# A typical image is about twice as far (squared) from another image as from the mean; rounding
# errors grow with this ratio.
OUTLIER = 8.0
# Least and most features shifted at a time on a CPU, where the shifted copy then stays in cache; an
# accelerator shifts them all at once, which it fuses into one kernel.
SLICES = (256, 2048)
SAFE = (1e-30, 1e30)  # trace of a Gram matrix that float32 holds with room for its products


@flax.struct.dataclass
class Gram:
    """A Gram matrix of one layer on one group of images.

    Attributes:
      matrix: Gram matrix times 2**-exponent, centred if the function that returned it says so.
      exponent: power of two that brings the mean diagonal entry near one.
      energy: sum over the images of |x - mean|^2, times 2**-exponent.
      shift_energy: n |shift|^2, of the shift that was subtracted (about n |mean|^2).
    """

    matrix: Float[Array, "n n"]
    exponent: Int[Array, ""]
    energy: Float[Array, ""]
    shift_energy: Scaled


def check_kernel(kernel: str, bandwidth: float) -> None:
    """Raises ValueError for an unknown kernel, or a bandwidth that is not above 0."""
    check_name("kernel", kernel, KERNELS)
    if not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth = {bandwidth}: expected a number above 0 (median distances)")


def linear(x: Float[Array, "n ..."]) -> Gram:
    """Returns the linear Gram matrix of features x, shifted by an image and not centred.

    Args:
      x: features of n images, of any floating type; all axes but the first are flattened.
    """
    n = x.shape[0]
    x = x.reshape(n, -1)
    # The fewer operations, the sooner a program of a hundred layers is compiled.
    zero, one = jnp.int32(0), jnp.float32(1)
    diagonal = jnp.eye(n, dtype=bool)

    def turn(state):
        tries, image, *_ = state
        shift = jax.lax.dynamic_index_in_dim(x, image, keepdims=False).astype(jnp.float32)
        factor, exponent = jax.lax.cond(
            tries > 0,
            lambda: _unit(jnp.max(jnp.abs(x.astype(jnp.float32) - shift))),
            lambda: (one, zero),
        )
        k = _shifted_product(x, shift, factor)
        size, sums = jnp.sum(jnp.where(diagonal, k, 0), axis=1), jnp.sum(k, axis=1)
        trace = jnp.sum(size)
        energy = trace - jnp.sum(sums) / n
        good = (trace > SAFE[0]) & (trace < SAFE[1]) & (trace < OUTLIER * energy)
        # The medoid: its mean square distance from the others is at most twice that of the mean,
        # and unlike the mean it is not dragged along by an outlier. Finding it takes a Gram matrix
        # within float32: if the first is not, the second turn only corrects the scale.
        image = jnp.where(tries == 0, 0, _medoid(size, sums))
        shift_energy = _energy(shift, n)
        return tries + 1, image, good & (tries == 0), k, 2 * exponent, shift_energy, trace, energy

    # One loop of one or three turns, not a product with a `cond` behind it: compiled once, and, as
    # the only reader of the tap, it does not keep the tap alive.
    nothing = jnp.float32(0)
    start = (zero, zero, jnp.bool_(False), jnp.zeros((n, n), jnp.float32), zero)
    start = (*start, Scaled(nothing, zero), nothing, nothing)
    state = jax.lax.while_loop(lambda state: (state[0] < 3) & ~state[2], turn, start)
    k, exponent, shift_energy, trace, energy = state[3:]
    factor, step = _unit(trace / n)
    return Gram(k * factor, exponent + step, energy * factor, shift_energy)


def medoid(k: Float[Array, "n n"]) -> Int[Array, ""]:
    """Returns the image that is nearest to all images, by the sum of its squared distances.

    Args:
      k: linear Gram matrix, centred or not.
    """
    return _medoid(jnp.diagonal(k), jnp.sum(k, axis=1))


def _medoid(diagonal, sums):
    return jax.lax.argmin(len(sums) * diagonal - 2 * sums, 0, jnp.int32)


def noise(grams: Sequence[Gram]) -> Float[Array, " layers"]:
    """Returns for each layer the share of its variation in a group that may be rounding noise.

    It is (8 eps)^2 |x|^2 / |x - mean|^2, both summed over the images: below 1 for features that
    vary, infinite for constant ones, and NaN for features that are not finite.

    Args:
      grams: from `linear`, or centred ones.
    """
    energy, exponent, shift = numbers(grams)
    shift = _ldexp(shift.value, shift.exponent - exponent)
    share = (8 * EPS) ** 2 * (shift + energy) / energy
    return jnp.where(energy == 0, jnp.inf, share)


def numbers(
    grams: Sequence[Gram],
) -> tuple[Float[Array, " layers"], Int[Array, " layers"], Scaled]:
    """Returns (energy, exponent, shift_energy) of all layers, each stacked."""
    fields = [(gram.energy, gram.exponent, gram.shift_energy) for gram in grams]
    return jax.tree.map(lambda *layers: jnp.stack(layers), *fields)


def rescaled(gram: Gram, shift_energy: Scaled, exponent: Int[Array, ""]) -> Gram:
    """Returns the Gram of features as they were before a shift and a scale were taken off.

    Args:
      gram: of the features as they are now.
      shift_energy: n |shift|^2 of that shift.
      exponent: of the power of two, twice.
    """
    left = Scaled(gram.shift_energy.value, gram.shift_energy.exponent + exponent)
    return gram.replace(
        exponent=gram.exponent + exponent, shift_energy=add_scaled(left, shift_energy)
    )


def centre(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns H K H with H = I - 11'/n: the Gram matrix of the features less their mean.

    A matrix of NumPy stays in NumPy, and thus in float64.
    """
    mean = k.mean(axis=1)
    mean = mean - mean.mean() / 2
    return k - mean[:, None] - mean[None, :]


def u_centre(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns the U-centred matrix: zero diagonal, rows and columns of the rest sum to zero.

    A matrix of NumPy stays in NumPy, and thus in float64.

    Source: Szekely and Rizzo 2014, definition 2.
    """
    library = np if isinstance(k, np.ndarray) else jnp
    n = k.shape[0]
    off = ~library.eye(n, dtype=bool)
    k = library.where(off, k, 0)
    mean = k.sum(axis=1) / (n - 2)
    mean = mean - mean.sum() / (2 * (n - 1))
    return library.where(off, k - mean[:, None] - mean[None, :], 0)


def _shifted_product(x, shift, factor):
    """Returns y y' of y = (x - shift) * factor."""

    def whole(x, shift):
        return _product((x.astype(jnp.float32) - shift) * factor)

    def in_slices(x, shift):
        def part(start, size):
            piece = jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
            return whole(piece, jax.lax.dynamic_slice_in_dim(shift, start, size))

        length = _slice_length(x.shape[1])
        slices, rest = divmod(x.shape[1], length)
        k = part(slices * length, rest) if rest else jnp.zeros((len(x), len(x)), jnp.float32)
        if slices:
            k = jax.lax.fori_loop(0, slices, lambda i, k: k + part(i * length, length), k)
        return k

    return jax.lax.platform_dependent(x, shift, cpu=in_slices, default=whole)


def _slice_length(features: int) -> int:
    """Returns the length of the slices of a product, a power of two.

    A product on a CPU may add up its terms one after the other, and its rounding errors grow with
    the number of terms, and with the number of slices. A length near the square root of 8 times
    the number of features keeps both small: errors are below 1e-6 of the largest entry of K from
    5,000 to 400,000 features.
    """
    length = 2 ** round(math.log2(8 * max(features, 1)) / 2)
    return min(max(length, SLICES[0]), SLICES[1])


def _product(x):
    """Returns x x' in float32, whatever precision the rest of the program runs at."""
    highest = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(x, x, (((1,), (1,)), ((), ())), precision=highest)


def _energy(shift, n):
    """Returns n |shift|^2 without leaving float32."""
    factor, exponent = _unit(jnp.max(jnp.abs(shift)))
    return Scaled(n * jnp.sum(jnp.square(shift * factor)), 2 * exponent)


def add_scaled(a: Scaled, b: Scaled) -> Scaled:
    """Returns a + b without leaving float32."""
    exponent = jnp.maximum(a.exponent, b.exponent)
    value = _ldexp(a.value, a.exponent - exponent) + _ldexp(b.value, b.exponent - exponent)
    return Scaled(value, exponent)


def exponent_of(x: Float[Array, ""]) -> Int[Array, ""]:
    """Returns e with 2**(e - 1) <= x < 2**e; 0 where x is zero, subnormal or not finite."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) >> 23  # negative where x is
    return jnp.where((bits > 0) & (bits < 255), bits - 126, 0)


def _unit(x):
    """Returns (2**-e, e) of `exponent_of`, with e small enough for both powers to be normal."""
    exponent = jnp.minimum(exponent_of(x), 126)
    return power_of_two(-exponent), exponent


def _ldexp(x, exponent):
    """Returns x * 2**exponent exactly; in two steps, as 2**exponent alone may leave float32.

    Unlike `jnp.ldexp` it computes with normal numbers only, whatever the device does to subnormals.
    """
    half = exponent // 2
    return x * power_of_two(half) * power_of_two(exponent - half)


def power_of_two(exponent: Int[Array, ""]) -> Float[Array, ""]:
    """Returns 2**exponent in float32, at most 2**127 and at least 2**-126."""
    return jax.lax.bitcast_convert_type((jnp.clip(exponent, -126, 127) + 127) << 23, jnp.float32)
