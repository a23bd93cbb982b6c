"""Sums: what an analysis returns for one group of images, and everything that adding them gives.

Every measurement is a sum over groups, so merging is `+`: over time, devices, hosts and resumed
runs. Group k of a repeat is added to block k mod 64 in float64; the total and the totals that
leave one block out give each variable of a result its estimate and, by one jackknife, its
standard error.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float, Int

BLOCKS = 64
Z = 1.96  # standard errors in half of a 95% interval
NO_ERROR = "standard_error"  # attribute of a variable that is no estimate, "none"


@flax.struct.dataclass
class Scaled:
    """Numbers of any size in float32: value * 2**exponent.

    Sums of squared Gram matrices leave the range of float32 for features below 1e-10 or above
    1e10. The device keeps the value near one, the exponent travels beside it, and the host undoes
    it in float64.

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

    The device sums products of what is centred within the group; the host adds the outer product
    of the means, in float64, where the mean can cancel later without loss. The product of x with a
    column of ones is the sum of x, as exact.

    Attributes:
      centred: sum over images of (x - mean x)(y - mean y)'.
      left, right: mean x and mean y, each as two numbers that add up to it: the features of one
        image that counts, and the mean of what they differ by. One float32 would round it too
        coarsely.
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

        Images of weight 0 count for nothing, whatever they are: NaN, or far from all others.
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


def to_host(tree: Any) -> Any:
    """Returns sums of the device as NumPy float64, each `Scaled` and `Product` worked out."""
    leaf = lambda x: x.to_host() if _special(x) else np.asarray(x, np.float64)  # noqa: E731
    return jax.tree.map(leaf, tree, is_leaf=_special)


def host_shapes(tree: Any) -> Any:
    """Returns the form that `to_host` gives the shapes of device sums."""
    return jax.tree.map(lambda x: x.form if _special(x) else x, tree, is_leaf=_special)


def _special(x: Any) -> bool:
    return isinstance(x, Scaled | Product)


def _add(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else jax.tree.map(np.add, a, b)


def _add_to(a: Any, b: Any) -> Any:
    return np.add(a, b, out=a if isinstance(a, np.ndarray) and a.flags.writeable else None)


class Sums:
    """The sums of one analysis so far, in blocks.

    Blocks 0 to `blocks` - 1 hold the first repeat, on which the error bars rest (later repeats
    draw the same images again, so they are not independent); as many blocks behind them hold all
    later repeats. Each block is summed in group order, so that devices change no bit of the total.
    Neither do hosts with 64 blocks, each of which is summed on one host. With 1 block every host
    first sums the groups that it has, so that hosts change how the total is rounded.

    Args:
      blocks: 64, or 1 for an analysis with huge sums, which then has no standard errors.
    """

    def __init__(self, blocks: int = BLOCKS):
        self.blocks = blocks
        self.trees: dict[int, Any] = {}
        self.images: dict[int, int] = {}

    def add(self, tree: Any, images: int, group: int, repeat: int = 0) -> None:
        """Adds the host sums of group number `group` of a repeat, made from `images` images.

        The first ones of a block become the block, and others are added to them in place.
        """
        slot = group % self.blocks + self.blocks * (repeat > 0)
        if slot in self.trees:
            self.trees[slot] = jax.tree.map(_add_to, self.trees[slot], tree)
        else:
            self.trees[slot] = tree
        self.images[slot] = self.images.get(slot, 0) + images

    def __bool__(self) -> bool:
        return bool(self.trees)

    def total(self) -> Any:
        """Returns the sum over all groups of all repeats."""
        return functools.reduce(_add, (self.trees[slot] for slot in sorted(self.trees)))

    def left_out(self) -> Iterator[tuple[int, Any]]:
        """Yields (images of a block, total of the first repeat without it) for each of its blocks.

        Totals are added up from both ends rather than subtracted, so nothing cancels.
        """
        slots = self._first()
        behind = [None]
        for slot in slots[:0:-1]:
            behind.append(_add(self.trees[slot], behind[-1]))
        ahead = None
        for slot in slots:
            yield self.images[slot], _add(ahead, behind.pop())
            ahead = _add(ahead, self.trees[slot])

    def first_repeat(self) -> Any:
        """Returns the sum over the groups of the first repeat."""
        return functools.reduce(_add, (self.trees[slot] for slot in self._first()))

    def _first(self) -> list[int]:
        return sorted(slot for slot in self.trees if slot < self.blocks)

    def merge(self, other: Sums) -> None:
        """Adds the sums of another host, which holds other blocks."""
        for slot, tree in other.trees.items():
            self.trees[slot] = _add(self.trees.get(slot), tree)
            self.images[slot] = self.images.get(slot, 0) + other.images[slot]

    def state(self) -> dict[str, np.ndarray]:
        """Returns the sums as flat arrays to save; `load` reads them back."""
        slots = sorted(self.trees)
        flat = {"slots": np.array(slots, np.int64)}
        flat["images"] = np.array([self.images[slot] for slot in slots], np.int64)
        for i, leaves in enumerate(
            zip(*(jax.tree.leaves(self.trees[s]) for s in slots), strict=True)
        ):
            flat[f"leaf{i}"] = np.stack(leaves)
        return flat

    def load(self, flat: Mapping[str, np.ndarray], structure: Any) -> None:
        """Restores `state`; `structure` is a pytree of the same form."""
        treedef = jax.tree.structure(structure)
        for row, slot in enumerate(flat["slots"].tolist()):
            leaves = [flat[f"leaf{i}"][row] for i in range(treedef.num_leaves)]
            self.trees[slot] = jax.tree.unflatten(treedef, leaves)
            self.images[slot] = int(flat["images"][row])


def estimate(sums: Sums, finalize: Callable[[Any], xarray.Dataset]) -> xarray.Dataset:
    """Returns `finalize` of the total, with `<name>_standard_error` beside every floating variable.

    The standard error is the delete-one-block jackknife for blocks of unequal size (Busing, Meijer
    and van der Leeden 1999, eq. 9), of one repeat. It is NaN with fewer than two blocks. A variable
    gets none if `finalize` gave it one of its own, or if its attribute `standard_error` is "none",
    because it is no estimate (parameters, ends of intervals).
    """
    result = finalize(sums.total())
    sizes, replicates, whole = [], [], result
    if sums.blocks > 1 and len(sums.images) > 1:
        with warnings.catch_warnings():  # what is to be said was said of the total
            warnings.simplefilter("ignore")
            whole = finalize(sums.first_repeat())
            for images, tree in sums.left_out():
                if tree is not None:
                    sizes.append(images)
                    replicates.append(finalize(tree))
    for name in [n for n, v in result.data_vars.items() if _estimated(v, n, result)]:
        variable = result[name]
        if replicates:
            values = np.stack([r[name].values for r in replicates])
            error = jackknife(whole[name].values, values, np.array(sizes, np.float64))
        else:
            error = np.full(variable.shape, np.nan)
        attrs = {"long_name": f"standard error of {variable.attrs.get('long_name', name)}"}
        if "units" in variable.attrs:
            attrs["units"] = variable.attrs["units"]
        result[f"{name}_standard_error"] = (variable.dims, error, attrs)
    return result


def _estimated(variable: xarray.DataArray, name: str, result: xarray.Dataset) -> bool:
    own = name.endswith("_standard_error") or f"{name}_standard_error" in result
    return variable.dtype.kind == "f" and not own and variable.attrs.get(NO_ERROR) != "none"


def jackknife(
    whole: Float[np.ndarray, "..."],
    left_out: Float[np.ndarray, "blocks ..."],
    sizes: Float[np.ndarray, " blocks"],
) -> Float[np.ndarray, "..."]:
    """Returns the delete-one-block jackknife standard error.

    Args:
      whole: the statistic on everything.
      left_out: the statistic without each block.
      sizes: the number of images of each block.

    Source: Busing, Meijer and van der Leeden, Delete-m Jackknife for Unequal m, 1999, eq. 9.
    """
    g = len(sizes)
    h = (sizes.sum() / sizes).reshape((g,) + (1,) * np.ndim(whole))
    pseudo = h * whole - (h - 1) * left_out
    centre = g * whole - ((1 - 1 / h) * left_out).sum(0)
    return np.sqrt(((pseudo - centre) ** 2 / (h - 1)).sum(0) / g)
