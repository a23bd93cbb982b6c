"""Reads the states from which a training run resumes: orbax folders such as checkpoints/500."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
from flax import traverse_util


def read(folder: pathlib.Path, average: bool = True) -> dict[str, np.ndarray]:
    """Reads the weights and running statistics of a step, but not the state of the optimizer.

    Args:
      folder: the folder of the step.
      average: whether to read the average of the weights where the run had one.

    Raises:
      ValueError: the folder is damaged, or `vitcnn.training` did not write it.
    """
    import orbax.checkpoint as ocp  # which takes a quarter of a second to import

    step = int(folder.name)
    handler = ocp.PyTreeCheckpointHandler()
    try:
        with ocp.CheckpointManager(folder.parent.absolute(), item_handlers=handler) as manager:
            tree = manager.item_metadata(step).tree
            weights = "average" if average and tree.get("average") else "params"
            wanted = {name: tree[name] for name in (weights, "stats")}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            arguments = ocp.args.PyTreeRestore(
                item=wanted, restore_args=as_numpy, partial_restore=True
            )
            state = manager.restore(step, args=arguments)
    except Exception as error:  # orbax raises a dozen types for a damaged folder
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"{folder} is damaged, or is not a checkpoint of a training run: {reason}"
        ) from error
    return traverse_util.flatten_dict({"params": state[weights], **state["stats"]}, sep="/")
