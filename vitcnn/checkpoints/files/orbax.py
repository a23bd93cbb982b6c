"""Reads what a training run saves to go on from: a folder of orbax, such as checkpoints/500."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the weights and running statistics of a step, not the state of the optimiser.

    Raises:
      ValueError: the folder is damaged, or is not of `vitcnn.training`.
    """
    step = int(folder.name)
    handler = ocp.PyTreeCheckpointHandler()
    try:
        with ocp.CheckpointManager(folder.parent.absolute(), item_handlers=handler) as manager:
            tree = manager.item_metadata(step).tree
            wanted = {name: tree[name] for name in ("params", "stats")}
            kind = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            how = ocp.args.PyTreeRestore(item=wanted, restore_args=kind, partial_restore=True)
            found = manager.restore(step, args=how)
    except Exception as error:  # orbax raises a dozen kinds on a damaged folder
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"{folder} is damaged, or is no checkpoint of training: {reason}"
        ) from error
    return traverse_util.flatten_dict({"params": found["params"], **found["stats"]}, sep="/")
