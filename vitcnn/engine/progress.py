"""The state of a run: what a stopped run resumes from, and what hosts exchange at the end."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcnn import parallel, storage
from vitcnn.engine.sums import Sums


class State:
    """The sums of every job so far, and how many groups this host has done.

    Args:
      blocks: name of the job -> number of blocks of its sums.
      path: file that `save` replaces in one step and `resume` reads; None to stay in memory.
    """

    def __init__(self, blocks: Mapping[str, int], path: pathlib.Path | None):
        self.sums = {name: Sums(n) for name, n in blocks.items()}
        self.next = 0
        self.path = path

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns everything as flat arrays."""
        flat = {"next": np.array(self.next)}
        for name, sums in self.sums.items():
            flat |= {
                f"{name}:{key}": value for key, value in (sums.state() if sums else {}).items()
            }
        return flat

    def read(self, flat: Mapping[str, np.ndarray], shapes: Mapping[str, Any]) -> dict[str, Sums]:
        """Returns the sums of flat arrays; `shapes` has their form, by name of the job."""
        made = {}
        for name, sums in self.sums.items():
            made[name] = Sums(sums.blocks)
            mine = {k.split(":", 1)[1]: v for k, v in flat.items() if k.startswith(f"{name}:")}
            if mine:
                made[name].load(mine, shapes[name])
        return made

    def save(self) -> None:
        """Replaces the file."""
        if self.path is not None:
            with storage.atomic(self.path) as partial, open(partial, "wb") as file:
                np.savez(file, **self.arrays())

    def resume(self, shapes: Mapping[str, Any]) -> None:
        """Goes on from the file, if there is one."""
        if self.path is not None and self.path.is_file():
            with np.load(self.path, allow_pickle=False) as flat:
                flat = dict(flat)
            self.next = int(flat["next"])
            self.sums = self.read(flat, shapes)

    def meet(self, shapes: Mapping[str, Any]) -> dict[str, Sums]:
        """Returns the sums of all hosts."""
        if parallel.host()[1] == 1:  # no copies of what may be huge
            return self.sums
        total = {name: Sums(sums.blocks) for name, sums in self.sums.items()}
        for part in parallel.meet(self.arrays()):
            for name, sums in self.read(part, shapes).items():
                total[name].merge(sums)
        return total
