"""Numbers that one float32 cannot hold: they travel in parts, and the host adds them in float64."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vitcnn.numerics.arrays import Array


@flax.struct.dataclass
class Scaled:
    """Numbers of any size in float32: value * 2**exponent.

    Sums of squared Gram matrices leave the range of float32 for features below 1e-10 or above
    1e10. The device keeps the value near one, the exponent travels with it, and the host multiplies
    them in float64.

    Attributes:
      value: float32 numbers.
      exponent: int32, broadcast against `value`.
    """

    value: Float[Array, "..."]
    exponent: Int[Array, "..."]

    def to_host(self) -> np.ndarray:
        """Returns the numbers in float64."""
        return np.ldexp(np.asarray(self.value, np.float64), np.asarray(self.exponent))

    @property
    def form(self) -> Any:
        """An array of the shape that `to_host` returns."""
        return self.value


@flax.struct.dataclass
class Product:
    """Sum over images of the outer products x y', exact in float32 for features of any mean.

    The device sums products of features centred within the group; the host adds the outer product
    of the means, in float64, where the mean can cancel later without loss. The product of x with a
    column of ones is the sum of x, with the same accuracy.

    Attributes:
      centred: sum over images of (x - mean x)(y - mean y)'.
      left, right: mean x and mean y, each as two numbers that add up to it: the features of one
        image, and the mean difference from them. One float32 would round the mean too coarsely.
      count: number of images, or the sum of their weights.
    """

    centred: Float[Array, "... left right"]
    left: Float[Array, "... 2 left"]
    right: Float[Array, "... 2 right"]
    count: Float[Array, "..."]

    @classmethod
    def of(
        cls,
        x: Float[Array, "n left"],
        y: Float[Array, "n right"],
        weight: Float[Array, " n"] | None = None,
    ) -> Product:
        """Returns the sum over a group of images, each counted `weight` times (1 by default).

        Images of weight 0 change nothing, even if they are NaN or far from all others.
        """
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        weight = jnp.ones(len(x), jnp.float32) if weight is None else weight.astype(jnp.float32)
        count = jnp.sum(weight)
        highest = jax.lax.Precision.HIGHEST
        counts = weight > 0
        first = jnp.argmax(counts)

        def centre(a):
            shift = jnp.where(counts[first], a[first], 0)
            rest = jnp.where(counts[:, None], a - shift, 0)
            mean = jnp.matmul(weight, rest, precision=highest) / jnp.maximum(count, 1)
            return rest - mean, jnp.stack([shift, mean])

        (x, left), (y, right) = centre(x), centre(y)
        product = jnp.matmul((x * weight[:, None]).T, y, precision=highest)
        return cls(product, left, right, count)

    def to_host(self) -> np.ndarray:
        """Returns the sum of x y' in float64."""
        left, right = (np.asarray(a, np.float64).sum(-2) for a in (self.left, self.right))
        count = np.asarray(self.count, np.float64)[..., None, None]
        total = left[..., :, None] * right[..., None, :]
        total *= count  # in place: it may be the largest array there is
        total += np.asarray(self.centred)
        return total

    @property
    def form(self) -> Any:
        """An array of the shape that `to_host` returns."""
        return self.centred


@flax.struct.dataclass
class Double:
    """Numbers in two float32, with 48 binary digits where float32 has 24.

    JAX rounds float64 to float32 on its way to a device and back unless a global flag is set, so
    float64 travels in this form.

    Attributes:
      high: the numbers, rounded to float32.
      low: what is missing from them.
    """

    high: Float[Array, "..."]
    low: Float[Array, "..."]

    @classmethod
    def of(cls, x: Float[Array, "..."]) -> Double:
        """Returns float64 numbers in two parts, on the host or (within `jax.enable_x64`) on device.

        Args:
          x: float64, in the range of float32.
        """
        high = x.astype(np.float32)
        return cls(high, (x - high.astype(np.float64)).astype(np.float32))

    def to_host(self) -> np.ndarray:
        """Returns the numbers in float64."""
        total = np.asarray(self.high, np.float64)
        total += np.asarray(self.low)
        return total

    @property
    def form(self) -> Any:
        """An array of the shape that `to_host` returns."""
        return self.high


class Unfinished:
    """Base class of sums that the host has to finish, in float64, before it adds them up."""

    def to_host(self) -> Any:
        """Returns the sums, a pytree of NumPy arrays."""
        raise NotImplementedError

    @property
    def form(self) -> Any:
        """A pytree of arrays of the shapes that `to_host` returns."""
        raise NotImplementedError


def to_host(tree: Any) -> Any:
    """Returns device sums as NumPy float64, with the value of each class of this file."""
    leaf = lambda x: x.to_host() if _special(x) else np.asarray(x, np.float64)  # noqa: E731
    return jax.tree.map(leaf, tree, is_leaf=_special)


def host_shapes(tree: Any) -> Any:
    """Returns the shapes of device sums as `to_host` returns them."""
    return jax.tree.map(lambda x: x.form if _special(x) else x, tree, is_leaf=_special)


def _special(x: Any) -> bool:
    return isinstance(x, Scaled | Product | Double | Unfinished)
