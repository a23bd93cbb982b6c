"""The folder of a training run, read as a checkpoint that knows its network."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

WEIGHTS = "weights.npz"
CHECKPOINTS = "checkpoints"  # folder of the state that a stopped run goes on from


def trained(workdir: str | os.PathLike, family: str, variant: str) -> dict[str, Any]:
    """Returns what a folder that `vitcnn.training.train` wrote says of its network.

    Args:
      workdir: the folder; or "checkpoints" in it, for the weights as far as the run has come.
      family, variant: the network that is asked for.

    Returns:
      {"path": its weights file, "fields": the fields of the module, "preprocess": its fields}.

    Raises:
      FileNotFoundError: the folder is no training run, or the run has not finished.
      ValueError: it holds another network.
    """
    workdir, weights = pathlib.Path(workdir), None
    if workdir.name == CHECKPOINTS:
        steps = [path for path in workdir.iterdir() if path.name.isdigit()]
        workdir, weights = workdir.parent, max(steps, key=lambda path: int(path.name), default=None)
        if weights is None:
            raise FileNotFoundError(f"{workdir / CHECKPOINTS} holds no checkpoint yet")
    run = workdir / "run.json"
    if not run.is_file():
        raise FileNotFoundError(
            f"{workdir} is not a training run: it has no run.json; nor does it hold weights of a "
            "usual name (model.safetensors, pytorch_model.bin): give the path of the file itself"
        )
    model = json.loads(run.read_text()).get("model")
    if model is None:
        raise FileNotFoundError(f"{workdir} is not a training run: its run.json names no model")
    if (model["family"], model["variant"]) != (family, variant):
        raise ValueError(
            f"{workdir} holds {model['family']} {model['variant']}, not {family} {variant}"
        )
    if weights is None and not (workdir / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{workdir / WEIGHTS} does not exist: the training run has not finished; run the same "
            f"command again to go on, or give {workdir / CHECKPOINTS} for the weights so far"
        )
    return {
        "path": weights or workdir / WEIGHTS,
        "fields": model["fields"],
        "preprocess": model["preprocess"],
    }
