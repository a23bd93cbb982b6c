"""Progress: what a stopped run resumes from, and what hosts exchange at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcnn import parallel, storage
from vitcnn.engine.schedule import Slice
from vitcnn.engine.sums import Sums
from vitcnn.numerics.exact import to_host


class Progress:
    """The sums of every job so far, and how many groups this host has done.

    Args:
      blocks: job name -> number of blocks of its sums.
      path: file that `save` replaces in one step and `resume` reads; None to stay in memory.

    Attributes:
      sums: job name -> sums so far.
      groups_done: how many groups of this host's part of the schedule are in the sums.
    """

    def __init__(self, blocks: Mapping[str, int], path: storage.Path | None):
        self.sums = {name: Sums(n) for name, n in blocks.items()}
        self.groups_done = 0
        self.path = path

    def add(self, slice_: Slice, device_sums: Mapping[str, Any]) -> None:
        """Adds the sums of this host's next group.

        Args:
          slice_: the group.
          device_sums: job name -> sums of the group, as they come from the device.
        """
        for name, images in slice_.images_per_job:
            sums = to_host(device_sums[name])
            self.sums[name].add(sums, images, slice_.group, slice_.repeat)
        self.groups_done += 1

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns everything as flat arrays, to save or to send."""
        arrays = {"groups_done": np.array(self.groups_done)}
        for name, sums in self.sums.items():
            if sums:
                arrays |= {f"{name}:{key}": value for key, value in sums.to_arrays().items()}
        return arrays

    def save(self) -> None:
        """Replaces the file."""
        if self.path is not None:
            with storage.atomic(self.path) as partial, partial.open("wb") as file:
                np.savez(file, **self.to_arrays())

    def resume(self, sum_shapes: Mapping[str, Any]) -> None:
        """Continues from the file, if there is one.

        Args:
          sum_shapes: job name -> pytree of the form of its sums.
        """
        if self.path is not None and storage.exists(self.path):
            with (
                storage.copy_here(self.path) as here,
                np.load(here, allow_pickle=False) as file,
            ):
                arrays = dict(file)
            self.groups_done = int(arrays["groups_done"])
            self.sums = self._sums_of(arrays, sum_shapes)

    def sums_of_all_hosts(self, sum_shapes: Mapping[str, Any]) -> dict[str, Sums]:
        """Exchanges the sums between hosts and returns their totals by job name."""
        if parallel.host()[1] == 1:  # sums can be huge: one host makes no copy
            return self.sums
        totals = {name: Sums(sums.blocks) for name, sums in self.sums.items()}
        for arrays in parallel.meet(self.to_arrays()):
            for name, sums in self._sums_of(arrays, sum_shapes).items():
                totals[name].merge(sums)
        return totals

    def _sums_of(
        self, arrays: Mapping[str, np.ndarray], sum_shapes: Mapping[str, Any]
    ) -> dict[str, Sums]:
        """Returns the sums that `to_arrays` flattened, by job name."""
        restored = {}
        for name, sums in self.sums.items():
            prefix = f"{name}:"
            its_arrays = {
                key.removeprefix(prefix): array
                for key, array in arrays.items()
                if key.startswith(prefix)
            }
            restored[name] = Sums.from_arrays(its_arrays, sum_shapes[name], sums.blocks)
        return restored
