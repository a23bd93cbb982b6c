"""TensorBoard: the numbers of a run as its event files, if tensorboardX is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from vitcnn import storage


class Events:
    """Writes numbers into the folder of a run; without tensorboardX it does nothing.

    Args:
      folder: the folder. Event files for a bucket grow on this machine, and `flush` puts them.
      first: number of steps taken so far; later steps that are there already are dropped.
    """

    def __init__(self, folder: storage.Path, first: int):
        self._writer: Any = None
        try:
            import tensorboardX
        except ImportError:
            return
        self._folder, self._stack = folder, contextlib.ExitStack()
        self._here = self._stack.enter_context(storage.folder_here(folder))
        self._writer = tensorboardX.SummaryWriter(str(self._here), purge_step=first + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of a step by name."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def flush(self) -> None:
        """Puts the event files into the bucket, if the folder is in one."""
        if self._writer is not None and storage.is_remote(self._folder):
            storage.upload(self._here, self._folder)

    def close(self) -> None:
        """Closes the files."""
        if self._writer is not None:
            self._writer.close()
            self._stack.close()
