"""Sums: what an analysis returns for one group of images, added up over the groups.

Every measurement is a sum over groups, so merging is `+`: over time, devices, hosts and resumed
runs. Group k of a repeat is added to block k mod 64 in float64. The total gives each variable of a
Result its estimate; the totals that leave out one block give its standard error, by one jackknife.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import xarray

from vitcnn.numerics.statistics import jackknife
from vitcnn.results.datasets import is_estimate

BLOCKS = 64


def _add(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else jax.tree.map(np.add, a, b)


def _add_to(a: Any, b: Any) -> Any:
    return np.add(a, b, out=a if isinstance(a, np.ndarray) and a.flags.writeable else None)


class Sums:
    """The sums of one analysis so far, in blocks.

    Blocks 0 to `blocks` - 1 hold the first repeat, from which the standard errors are computed
    (later repeats draw the same images again, so they are not independent). Blocks `blocks` to
    2 * `blocks` - 1 hold all later repeats. Each block is summed in group order, so the number of
    devices changes no bit of the total. With 64 blocks, each block is summed on one host, so the
    number of hosts changes no bit either. With 1 block, every host first sums its own groups, so
    the number of hosts changes how the total is rounded.

    Args:
      blocks: 64, or 1 for an analysis with huge sums, which then has no standard errors.

    Attributes:
      trees: number of a block -> pytree of its sums.
      images: number of a block -> number of images in them.
    """

    def __init__(self, blocks: int = BLOCKS):
        self.blocks = blocks
        self.trees: dict[int, Any] = {}
        self.images: dict[int, int] = {}

    def add(self, tree: Any, images: int, group: int, repeat: int = 0) -> None:
        """Adds the sums of one group.

        The first tree of a block becomes the block; later trees are added to it in place.

        Args:
          tree: the sums, on the host.
          images: number of images in the group.
          group: number of the group within its repeat.
          repeat: number of the repeat.
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
        """Yields (images of a block, total of the first repeat without that block) for each block.

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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the sums as flat arrays to save or to send; `from_arrays` reads them back."""
        slots = sorted(self.trees)
        arrays = {"slots": np.array(slots, np.int64)}
        arrays["images"] = np.array([self.images[slot] for slot in slots], np.int64)
        leaves_by_slot = [jax.tree.leaves(self.trees[slot]) for slot in slots]
        for i, leaves in enumerate(zip(*leaves_by_slot, strict=True)):
            arrays[f"leaf{i}"] = np.stack(leaves)
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], structure: Any, blocks: int = BLOCKS
    ) -> Sums:
        """Returns the sums that `to_arrays` flattened.

        Args:
          arrays: what `to_arrays` returned; nothing for sums to which no group was added.
          structure: a pytree of the form of the sums.
          blocks: number of blocks.
        """
        sums = cls(blocks)
        treedef = jax.tree.structure(structure)
        for row, slot in enumerate(arrays["slots"].tolist() if arrays else ()):
            leaves = [arrays[f"leaf{i}"][row] for i in range(treedef.num_leaves)]
            sums.trees[slot] = jax.tree.unflatten(treedef, leaves)
            sums.images[slot] = int(arrays["images"][row])
        return sums


def estimate(sums: Sums, finalize: Callable[[Any], xarray.Dataset]) -> xarray.Dataset:
    """Returns `finalize` of the total, with `<name>_standard_error` for every floating variable.

    The standard error is the delete-one-block jackknife for blocks of unequal size (Busing, Meijer
    and van der Leeden 1999, eq. 9) over the first repeat. It is NaN with fewer than two blocks. It
    is not computed where `finalize` returns a `<name>_standard_error` of its own, nor where the
    attribute `standard_error` of the variable is "none", because the variable is not an estimate
    (a parameter, the end of an interval).

    Args:
      sums: the sums of all groups.
      finalize: a total -> the Result.
    """
    result = finalize(sums.total())
    sizes, replicates, whole = [], [], result
    if sums.blocks > 1 and len(sums.images) > 1:
        with warnings.catch_warnings():  # the total above has raised them already
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
    return is_estimate(variable) and not own
