"""Checkpoints: the states from which a run resumes, two at a time, and never a wrong one.

A checkpoint is written beside the others and renamed when it is whole, so a run that is killed
while it saves has the one before. Which arrays a state has, and the name of the optimizer, are in
a small JSON beside the checkpoints, so that a state that does not fit is an error in words.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from vitcnn import parallel, storage
from vitcnn.training import state as states
from vitcnn.training.state import TrainState

STATE = "state.json"
_SHOWN = 6  # arrays that an error lists


class Checkpoints:
    """The folder of the checkpoints of a run, or of another run to read from.

    Args:
      folder: the folder; it may be absent for a run that has none yet.
      keep_every: number of steps between checkpoints that are kept for good; 0 for none.
    """

    def __init__(self, folder: pathlib.Path, keep_every: int = 0):
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, keep_period=keep_every or None, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self.latest: int | None = None
        latest = parallel.agree(max(self._manager.all_steps(), default=-1))
        if latest >= 0:
            self.latest = latest

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()  # waits until the last checkpoint is whole

    def save(self, step: int, state: TrainState, optimizer: str) -> None:
        """Saves a state, which has to be finite; does nothing if the step is saved already.

        The arrays have left the devices when this returns, and are written while training goes on.

        Args:
          step: number of steps that have been taken.
          state: the state.
          optimizer: name of the optimizer.

        Raises:
          OSError: the checkpoint was not written.
        """
        if self.latest == step:
            return
        if self.latest is None and parallel.host()[0] == 0:
            described = {"optimizer": optimizer, "arrays": states.described(state)}
            storage.write_json(self._folder / STATE, described)
        if not self._manager.save(step, args=ocp.args.StandardSave(state), force=True):
            raise OSError(f"orbax did not write the checkpoint {self._folder / str(step)}")
        self.latest = step

    def wait(self) -> None:
        """Waits until the last checkpoint is whole."""
        self._manager.wait_until_finished()

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
            return self._manager.restore(step, args=ocp.args.StandardRestore(shapes))
        except Exception as error:  # orbax raises a dozen types for a damaged folder
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ValueError(f"{self._folder / str(step)} is damaged: {reason}") from error

    def _check(self, step: int, shapes: TrainState, optimizer: str) -> None:
        path, where = self._folder / STATE, self._folder / str(step)
        try:
            saved = json.loads(path.read_text())
        except (OSError, ValueError):
            raise ValueError(f"{path} is absent or damaged, so {where} cannot be checked") from None
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
