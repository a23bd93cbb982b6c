"""TensorBoard: the numbers of a run as its event files, if tensorboardX is installed."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any


class Events:
    """Writes numbers into the folder of a run; without tensorboardX it does nothing.

    Args:
      folder: the folder.
      first: number of steps taken so far; later steps that are there already are dropped.
    """

    def __init__(self, folder: pathlib.Path, first: int):
        self._writer: Any = None
        try:
            import tensorboardX
        except ImportError:
            return
        self._writer = tensorboardX.SummaryWriter(str(folder), purge_step=first + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of a step by name."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._writer is not None:
            self._writer.close()
