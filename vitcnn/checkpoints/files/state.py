"""Reads the states of training runs in buckets: NumPy archives such as checkpoints/500.state.

The arrays are under their paths in `vitcnn.training.state.TrainState`, such as
"params/head/kernel". NumPy knows no bfloat16 and writes its bytes alone; parameters are float32.
"""

from __future__ import annotations

import pathlib

import numpy as np

from vitcnn.checkpoints.files import npz

SUFFIX = ".state"


def read(path: pathlib.Path, average: bool = True) -> dict[str, np.ndarray]:
    """Reads the weights and running statistics of a state, but not the state of the optimizer.

    Args:
      path: the file.
      average: whether to read the average of the weights where the run had one.

    Raises:
      ValueError: the file is truncated or is no NumPy archive.
    """
    arrays = npz.read(path)
    averaged = average and any(name.startswith("average/") for name in arrays)
    weights = "average/" if averaged else "params/"
    read = {}
    for name, array in arrays.items():
        if name.startswith(weights):
            read[f"params/{name.removeprefix(weights)}"] = array
        elif name.startswith("stats/"):
            read[name.removeprefix("stats/")] = array
    return read
