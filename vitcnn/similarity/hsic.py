"""Unbiased HSIC of many layers at once, exact in float32 for features of any offset and scale.

HSIC compares two Gram matrices of the same n images. U-centring a Gram matrix (zero diagonal,
then rows and columns made to sum to zero) turns the unbiased estimator of Song et al. 2012 into a
plain inner product, so one matrix product of the flattened, U-centred Grams gives HSIC of every
pair of layers:

    HSIC(K, L) = <U(K), U(L)> / (n (n - 3))

U-centring removes any shift of the features, K -> K + a 1' + 1 a', so the features may be shifted
freely before the product. They are shifted by those of one image, which lies near the mean
compared with the offset of the features; float32 then loses nothing to a large mean, at the price
of one pass over the activation. Where that image is an outlier, or the scale leaves float32, the
Gram matrix itself shows it, and the product is made once more with a typical image and a scale of
its own.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitcnn.sums import Scaled

# A typical image is about twice as far (squared) from another image as from the mean; rounding
# errors grow with this ratio.
OUTLIER = 8.0
# Features shifted at a time on a CPU, where the shifted copy then stays in cache; an accelerator
# shifts them all at once, which it fuses into one kernel.
CHUNK = 2048
SAFE = (1e-30, 1e30)  # trace of a Gram matrix that float32 holds with room for its products


@flax.struct.dataclass
class Gram:
    """A U-centred Gram matrix of one layer on one group of images.

    Attributes:
      matrix: U-centred Gram matrix times 2**-exponent.
      exponent: power of two that brings the mean diagonal entry near one.
      energy: sum over the images of |x - mean|^2, times 2**-exponent.
      shift_energy: n |shift|^2, of the shift that was subtracted (about n |mean|^2).
    """

    matrix: Float[Array, "n n"]
    exponent: Int[Array, ""]
    energy: Float[Array, ""]
    shift_energy: Scaled


def gram(x: Float[Array, "n ..."]) -> Gram:
    """Returns the U-centred linear Gram matrix of features x, all axes but the first flattened.

    Args:
      x: features of n >= 4 images, of any floating type.

    Source: Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327), minibatch CKA; Song et al. 2012.
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
        # and unlike the mean it is not dragged along by an outlier. It takes a Gram matrix within
        # float32 to find it, so the second turn only brings the scale there.
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
    return Gram(u_centre(k), exponent + step, energy, shift_energy)


def rescaled(gram: Gram, shift_energy: Scaled, exponent: Int[Array, ""]) -> Gram:
    """Returns the Gram of features from which a shift and a power of two were taken off before.

    Args:
      gram: of the features as they are now.
      shift_energy: n |shift|^2 of that shift.
      exponent: of the power of two, twice.
    """
    left = Scaled(gram.shift_energy.value, gram.shift_energy.exponent + exponent)
    return gram.replace(exponent=gram.exponent + exponent, shift_energy=_sum(left, shift_energy))


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


@flax.struct.dataclass
class HsicSums:
    """Sums over groups of images that give HSIC and CKA of every pair of layers.

    Attributes:
      hsic: sum of <U(K), U(L)>; each group thereby has the weight n (n - 3).
      energy: sum over images of |x - group mean|^2 of each layer.
      square: sum over images of |x|^2 of each layer, as |shift|^2 plus the centred energy.
      pairs: sum of n (n - 3).
      images: number of images.
    """

    hsic: Scaled  # [layers, layers]
    energy: Scaled  # [layers]
    square: Scaled  # [layers]
    pairs: Float[Array, ""]
    images: Float[Array, ""]


def hsic_sums(grams: list[Gram]) -> HsicSums:
    """Returns the sums of one group of images: every pair of layers by one matrix product."""
    n = grams[0].matrix.shape[0]
    stacked = jnp.stack([g.matrix.reshape(-1) for g in grams])
    product = jax.lax.dot_general(
        stacked, stacked, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST
    )
    exponent = jnp.stack([g.exponent for g in grams])
    energy = jnp.stack([g.energy for g in grams])
    shift = Scaled(
        jnp.stack([g.shift_energy.value for g in grams]),
        jnp.stack([g.shift_energy.exponent for g in grams]),
    )
    return HsicSums(
        hsic=Scaled(product, exponent[:, None] + exponent[None, :]),
        energy=Scaled(energy, exponent),
        square=_sum(shift, Scaled(energy, exponent)),
        pairs=jnp.float32(n * (n - 3)),
        images=jnp.float32(n),
    )


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


def _sum(a: Scaled, b: Scaled) -> Scaled:
    exponent = jnp.maximum(a.exponent, b.exponent)
    value = _ldexp(a.value, a.exponent - exponent) + _ldexp(b.value, b.exponent - exponent)
    return Scaled(value, exponent)


def _exponent(x: Float[Array, ""]) -> Int[Array, ""]:
    """Returns e with 2**(e - 1) <= x < 2**e; 0 where x is zero or not finite."""
    return jnp.where(jnp.isfinite(x) & (x > 0), jnp.frexp(x)[1], 0)


def _ldexp(x, exponent):
    """Returns x * 2**exponent exactly; in two steps, as 2**exponent alone may leave float32."""
    half = exponent // 2
    return x * _power(half) * _power(exponent - half)


def _power(exponent):
    return jax.lax.bitcast_convert_type((jnp.clip(exponent, -126, 127) + 127) << 23, jnp.float32)
