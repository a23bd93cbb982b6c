"""Gram matrices of a layer, exact in float32 for features of any offset and scale.

Centring removes any shift of the features, K -> K + a 1' + 1 a', so the features may be shifted
freely before the product. The shift is the features of one image, which lies near the mean compared
with the offset of the features; float32 then loses nothing to a large mean, at the price of one
pass over the activation. If that image is an outlier, or the scale leaves float32, the Gram matrix
itself shows it, and the product is computed once more with a typical image and a scale of its own.
Distances of images, and with them the RBF kernel, are read off the same matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Scaled

KERNELS = ("linear", "rbf")
EPS = float(np.finfo(np.float32).eps)  # whatever the type of the activations: Grams are float32
# A typical image is about twice as far (squared) from another image as from the mean; rounding
# errors grow with this ratio.
OUTLIER = 8.0
# Features shifted at a time on a CPU, where the shifted copy then stays in cache; an accelerator
# shifts them all at once, which it fuses into one kernel.
CHUNK = 2048
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

    def turn(state):
        tries, image, *_ = state
        shift = x[image].astype(jnp.float32)
        exponent = jax.lax.cond(tries > 0, lambda: _exponent(_distance(x, shift)), lambda: zero)
        k = _shifted_product(x, shift, exponent)
        trace = jnp.trace(k)
        good = (trace > SAFE[0]) & (trace < SAFE[1]) & (trace < OUTLIER * (trace - jnp.sum(k) / n))
        # The medoid: its mean square distance from the others is at most twice that of the mean,
        # and unlike the mean it is not dragged along by an outlier. Finding it takes a Gram matrix
        # within float32: if the first is not, the second turn only corrects the scale.
        medoid = jnp.argmin(n * jnp.diagonal(k) - 2 * jnp.sum(k, axis=1)).astype(jnp.int32)
        image = jnp.where(tries == 0, 0, medoid)
        return tries + 1, image, good & (tries == 0), k, 2 * exponent, _energy(shift, n)

    # One loop of one or three turns, not a product with a `cond` behind it: compiled once, and, as
    # the only reader of the tap, it does not keep the tap alive.
    zero, empty = jnp.int32(0), jnp.zeros((n, n), jnp.float32)
    start = (zero, zero, jnp.bool_(False), empty, zero, Scaled(jnp.float32(0), zero))
    state = jax.lax.while_loop(lambda state: (state[0] < 3) & ~state[2], turn, start)
    k, exponent, shift_energy = state[3:]
    trace = jnp.trace(k)
    step = _exponent(trace / n)
    k = _ldexp(k, -step)
    energy = jnp.trace(k) - jnp.sum(k) / n
    return Gram(k, exponent + step, energy, shift_energy)


def rbf(gram: Gram, bandwidth: float = 1.0) -> Gram:
    """Returns the Gram matrix of the Gaussian kernel, less the constant 1.

    K_ij = exp(-d_ij^2 / (2 sigma^2)) with sigma = bandwidth times the median distance d_ij of two
    different images of the group (Kornblith et al. 2019, section 4). The function returns K - 1,
    which has the same centred matrix as K and keeps its digits where the bandwidth is large.

    If the features do not vary beyond rounding noise, or half of the pairs of images are alike and
    the median is zero, there is no kernel: matrix and energy are 0.

    Args:
      gram: from `linear`, not centred.
      bandwidth: sigma as a fraction of the median distance.

    Returns:
      Gram whose energy is the energy of the kernel's own features, sum of |phi - mean phi|^2. Its
      shift energy has the same ratio to this energy as in `gram`.
    """
    n = gram.matrix.shape[0]
    square = squared_distances(gram.matrix)
    median = jnp.median(jnp.sqrt(square[np.triu_indices(n, 1)]))
    near = jnp.square(median) <= 8 * EPS * jnp.median(jnp.diagonal(gram.matrix))
    undefined = near | ~varies(gram) & jnp.isfinite(gram.energy)
    sigma = bandwidth * jnp.where(undefined, 1, median)
    k = jnp.where(undefined, 0, jnp.expm1(-square / (2 * jnp.square(sigma))))
    energy = -jnp.sum(k) / n
    shift = gram.shift_energy
    share = energy / jnp.where(gram.energy == 0, 1, gram.energy)
    shift = Scaled(shift.value * share, shift.exponent - gram.exponent)
    return Gram(k, jnp.zeros_like(gram.exponent), energy, shift)


def squared_distances(k: Float[Array, "... n n"]) -> Float[Array, "... n n"]:
    """Returns |x_i - x_j|^2 of a Gram matrix, centred or not; 0 on the diagonal."""
    size = jnp.diagonal(k, axis1=-2, axis2=-1)
    square = size[..., :, None] + size[..., None, :] - 2 * k
    return jnp.where(jnp.eye(k.shape[-1], dtype=bool), 0, jnp.maximum(square, 0))


def distances(grams: Float[Array, "layers n n"]) -> Float[Array, "layers pairs"]:
    """Returns the Euclidean distances of all pairs of images, the upper triangle row by row.

    Args:
      grams: linear Gram matrices, centred or not.
    """
    first, second = np.triu_indices(grams.shape[-1], 1)
    return jax.lax.map(lambda k: jnp.sqrt(squared_distances(k)[first, second]), grams)


def varies(gram: Gram) -> Bool[Array, ""]:
    """Returns whether features vary over the images of one group by more than rounding noise.

    The criterion is |x - mean|^2 > (8 eps)^2 |x|^2, both summed over the images; False if they are
    not finite.

    Args:
      gram: from `linear`.
    """
    shift = _ldexp(gram.shift_energy.value, gram.shift_energy.exponent - gram.exponent)
    return gram.energy > (8 * EPS) ** 2 * (shift + gram.energy)


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


@flax.struct.dataclass
class Spectra:
    """Eigenvalues and eigenvectors of centred Gram matrices, the greatest first.

    Attributes:
      values: squared singular values of the centred features. Values not above 8 eps of the
        greatest read 0: a direction in which the features do not vary would otherwise count by the
        root of its rounding error.
      vectors: [layer, :, i] is the i-th principal component of the images, of unit length.
    """

    values: Float[Array, "layers n"]
    vectors: Float[Array, "layers n n"]

    @property
    def rank(self) -> Int[Array, " layers"]:
        """Number of directions in which the features of a layer vary."""
        return jnp.sum(self.values > 0, axis=-1)


def spectra(grams: Float[Array, "layers n n"]) -> Spectra:
    """Returns the spectra of linear Gram matrices, which this function centres first."""

    def of_layer(k):
        values, vectors = jnp.linalg.eigh(centre(k))
        values, vectors = values[::-1], vectors[:, ::-1]
        return jnp.where(values > 8 * EPS * values[0], values, 0), vectors

    return Spectra(*jax.lax.map(of_layer, grams))


def stacked(grams: Sequence[Gram]) -> tuple[Float[Array, "layers n n"], Bool[Array, " layers"]]:
    """Returns the Gram matrices of all layers, not centred, and which of the layers vary.

    The Gram matrix of a layer that does not vary (see `varies`) is replaced by the Gram matrix of
    equidistant images, so that every measure is finite; the caller leaves its values out.

    Args:
      grams: from `linear`. Their powers of two are not applied, so that equal distances stay equal.
    """
    live = jnp.stack([varies(g) for g in grams])
    k = jnp.stack([g.matrix for g in grams])
    return jnp.where(live[:, None, None], k, jnp.eye(k.shape[-1])), live


def centre(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns H K H with H = I - 11'/n: the Gram matrix of the features less their mean."""
    mean = jnp.mean(k, axis=1)
    mean = mean - jnp.mean(mean) / 2
    return k - mean[:, None] - mean[None, :]


def u_centre(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns the U-centred matrix: zero diagonal, rows and columns of the rest sum to zero.

    Source: Szekely and Rizzo 2014, definition 2.
    """
    n = k.shape[0]
    off = ~jnp.eye(n, dtype=bool)
    k = jnp.where(off, k, 0)
    mean = jnp.sum(k, axis=1) / (n - 2)
    mean = mean - jnp.sum(mean) / (2 * (n - 1))
    return jnp.where(off, k - mean[:, None] - mean[None, :], 0)


def _shifted_product(x, shift, exponent):
    """Returns y y' of y = (x - shift) * 2**-exponent."""

    def whole(x, shift):
        return _product(_ldexp(x.astype(jnp.float32) - shift, -exponent))

    def in_slices(x, shift):
        def part(start, size):
            piece = jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
            return whole(piece, jax.lax.dynamic_slice_in_dim(shift, start, size))

        slices, rest = divmod(x.shape[1], CHUNK)
        k = part(slices * CHUNK, rest) if rest else jnp.zeros((len(x), len(x)), jnp.float32)
        if slices:
            k = jax.lax.fori_loop(0, slices, lambda i, k: k + part(i * CHUNK, CHUNK), k)
        return k

    return jax.lax.platform_dependent(x, shift, cpu=in_slices, default=whole)


def _distance(x, shift):
    """Returns max |x - shift|."""
    return jnp.max(jnp.abs(x.astype(jnp.float32) - shift))


def _product(x):
    """Returns x x' in float32, whatever precision the rest of the program runs at."""
    highest = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(x, x, (((1,), (1,)), ((), ())), precision=highest)


def _energy(shift, n):
    """Returns n |shift|^2 without leaving float32."""
    exponent = _exponent(jnp.max(jnp.abs(shift)))
    return Scaled(n * jnp.sum(jnp.square(_ldexp(shift, -exponent))), 2 * exponent)


def add_scaled(a: Scaled, b: Scaled) -> Scaled:
    """Returns a + b without leaving float32."""
    exponent = jnp.maximum(a.exponent, b.exponent)
    value = _ldexp(a.value, a.exponent - exponent) + _ldexp(b.value, b.exponent - exponent)
    return Scaled(value, exponent)


def _exponent(x: Float[Array, ""]) -> Int[Array, ""]:
    """Returns e with 2**(e - 1) <= x < 2**e; 0 where x is zero or not finite."""
    return jnp.where(jnp.isfinite(x) & (x > 0), jnp.frexp(x)[1], 0)


def _ldexp(x, exponent):
    """Returns x * 2**exponent exactly; in two steps, as 2**exponent alone may leave float32.

    Unlike `jnp.ldexp` it computes with normal numbers only, whatever the device does to subnormals.
    """
    half = exponent // 2
    return x * _power(half) * _power(exponent - half)


def _power(exponent):
    return jax.lax.bitcast_convert_type((jnp.clip(exponent, -126, 127) + 127) << 23, jnp.float32)
