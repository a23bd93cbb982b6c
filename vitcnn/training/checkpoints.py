"""Checkpoints: the states from which a run resumes, two at a time, and never a wrong one.

On this machine, orbax writes each state into a folder beside the others and renames the folder when
it is whole. In a bucket, which cannot rename, a state is one object, which one PUT writes whole. So
a run that is killed while it saves has the state before. Which arrays a state has, and the name of
the optimizer, are in a small JSON beside the states, so that a state that does not fit is an error
in words. In a bucket, the JSON also lists the states, and is written after the last of them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vitcnn import checkpoints, parallel, storage
from vitcnn.checkpoints.files.state import SUFFIX
from vitcnn.storage import Path
from vitcnn.training import state as states
from vitcnn.training.state import TrainState

_KEPT = 2  # the last states of a run
_SHOWN = 6  # arrays that an error lists


class Checkpoints:
    """The folder of the checkpoints of a run, or of another run to read from.

    Args:
      folder: the folder; it may be absent for a run that has none yet.
      keep_every: number of steps between checkpoints that are kept for good; 0 for none.

    Raises:
      ValueError: a bucket holds folders of orbax, or the list of its states is damaged.
    """

    def __init__(self, folder: Path, keep_every: int = 0):
        self._folder = storage.absolute(folder)
        # A run that was copied from a bucket to this machine goes on here in its own form.
        in_files = storage.is_remote(folder) or _in_files(self._folder)
        self._kept = (_Files if in_files else _Folders)(self._folder, keep_every)
        latest = parallel.agree(max(self._kept.steps(), default=-1))
        self.latest: int | None = latest if latest >= 0 else None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self._kept.close()  # waits until the last checkpoint is whole

    def save(self, step: int, state: TrainState, optimizer: str) -> None:
        """Saves a state, which has to be finite; does nothing if the step is saved already.

        The arrays have left the devices when this returns, and are written while training goes on.

        Args:
          step: number of steps that have been taken.
          state: the state.
          optimizer: name of the optimizer.

        Raises:
          OSError: the checkpoint, or the one before, was not written.
        """
        if self.latest == step:
            return
        described = {"optimizer": optimizer, "arrays": states.described(state)}
        self._kept.save(step, state, described, is_first=self.latest is None)
        self.latest = step

    def wait(self) -> None:
        """Waits until the last checkpoint is whole."""
        self._kept.wait()

    def restore(self, step: int, shapes: TrainState, optimizer: str) -> TrainState:
        """Returns the state of a step.

        Args:
          step: number of a checkpoint.
          shapes: shapes, types and shardings of the arrays that the run expects.
          optimizer: name of the optimizer of the run.

        Raises:
          ValueError: the checkpoint is of another optimizer or has other arrays, or is damaged.
        """
        self._check(step, shapes, optimizer)
        try:
            return self._kept.restore(step, shapes)
        except Exception as error:  # orbax raises a dozen types for a damaged folder
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            where = checkpoints.checkpoint(self._folder, step)
            raise ValueError(f"{where} is damaged: {reason}") from error

    def _check(self, step: int, shapes: TrainState, optimizer: str) -> None:
        path = self._folder / checkpoints.STATE
        where = checkpoints.checkpoint(self._folder, step)
        try:
            saved = storage.read_json(path)
        except (OSError, ValueError):
            saved = None
        if saved is None:
            raise ValueError(f"{path} is absent or damaged, so {where} cannot be checked")
        if saved["optimizer"] != optimizer:
            raise ValueError(
                f"{where} is the state of the optimizer {saved['optimizer']!r}, but "
                f"config.optimizer is {optimizer!r}"
            )
        there, here = saved["arrays"], states.described(shapes)
        lines = [
            f"  {name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
            for name in sorted(there.keys() | here.keys())
            if there.get(name) != here.get(name)
        ]
        if lines:
            more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            parts = {line.strip().partition("/")[0] for line in lines}
            # A network that differs changes all the parts.
            differs = "the network" if {"params", "stats"} & parts else f"config.{min(parts)}"
            raise ValueError(
                f"{where} has other arrays than this run: {differs} differs\n"
                + "\n".join(lines[:_SHOWN])
                + more
            )


def _in_files(folder: Path) -> bool:
    try:
        return "steps" in (storage.read_json(folder / checkpoints.STATE) or {})
    except ValueError:
        return False  # damaged, which is an error when a state is restored


class _Folders:
    """States that orbax keeps: on several hosts each of them writes a part of the arrays.

    Args:
      folder: the folder.
      keep_every: as for `Checkpoints`.
    """

    def __init__(self, folder: Path, keep_every: int):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, keep_period=keep_every or None, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def steps(self) -> list[int]:
        return list(self._manager.all_steps())

    def save(self, step: int, state: TrainState, described: dict[str, Any], is_first: bool) -> None:
        if is_first and parallel.host()[0] == 0:
            storage.write_json(self._folder / checkpoints.STATE, described)
        if not self._manager.save(step, args=ocp.args.StandardSave(state), force=True):
            raise OSError(f"orbax did not write the checkpoint {self._folder / str(step)}")

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def restore(self, step: int, shapes: TrainState) -> TrainState:
        return self._manager.restore(step, args=ocp.args.StandardRestore(shapes))

    def close(self) -> None:
        self._manager.close()


class _Files:
    """States of one file each: host 0 writes all arrays, every host reads the file.

    Args:
      folder: the folder.
      keep_every: as for `Checkpoints`.
    """

    def __init__(self, folder: Path, keep_every: int):
        self._folder, self._keep_every = folder, keep_every
        path = folder / checkpoints.STATE
        try:
            recorded = storage.read_json(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        if recorded is not None and "steps" not in recorded:
            raise ValueError(
                f"{folder} holds the states of a run on a disk, which cannot be resumed in a "
                "bucket: copy the workdir to a disk to go on"
            )
        self._steps = [] if recorded is None else recorded["steps"]
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._written: concurrent.futures.Future | None = None

    def steps(self) -> list[int]:
        return self._steps

    def save(self, step: int, state: TrainState, described: dict[str, Any], is_first: bool) -> None:
        self.wait()
        arrays = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            array = parallel.copied(leaf)  # the next step overwrites the array of the device
            if parallel.host()[0] == 0:
                arrays[jax.tree_util.keystr(path, simple=True, separator="/")] = array
        if arrays:
            self._written = self._thread.submit(self._write, step, arrays, described)

    def _write(self, step: int, arrays: dict[str, np.ndarray], described: dict[str, Any]) -> None:
        storage.make_folder(self._folder)
        with storage.atomic(self._path(step)) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
        before = self._steps
        self._steps = [
            each
            for i, each in enumerate([step, *reversed(before)])
            if i < _KEPT or (self._keep_every and each % self._keep_every == 0)
        ][::-1]
        storage.write_json(self._folder / checkpoints.STATE, {**described, "steps": self._steps})
        for each in set(before) - set(self._steps):
            with contextlib.suppress(OSError):  # a state that stays costs room only
                storage.remove(self._path(each))

    def _path(self, step: int) -> Path:
        return self._folder / f"{step}{SUFFIX}"

    def wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def restore(self, step: int, shapes: TrainState) -> TrainState:
        with (
            storage.copy_here(self._path(step)) as copy,
            np.load(copy, allow_pickle=False) as arrays,
        ):

            def one(path, leaf):
                array = arrays[jax.tree_util.keystr(path, simple=True, separator="/")]
                # NumPy has written the bytes of types that it does not know, such as bfloat16.
                return parallel.spread(array.view(leaf.dtype), leaf.sharding)

            return jax.tree_util.tree_map_with_path(one, shapes)

    def close(self) -> None:
        self._thread.shutdown()
        self.wait()


def shapes(make: Callable[[], TrainState], mesh: Any, divide: bool) -> TrainState:
    """Returns the shapes of a state, and where its arrays lie, without making it.

    Args:
      make: returns the state.
      mesh: the devices.
      divide: whether they share large arrays.
    """
    plain = jax.eval_shape(make)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        plain,
        parallel.shardings(plain, mesh, divide),
    )
