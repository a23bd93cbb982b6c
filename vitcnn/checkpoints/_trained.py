"""The folder of a training run, read as a checkpoint that knows its network."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

WEIGHTS = "weights.npz"


def trained(workdir: str | os.PathLike, family: str, variant: str) -> dict[str, Any]:
    """Returns what a folder that `vitcnn.training.train` wrote says of its network.

    Args:
      workdir: the folder.
      family, variant: the network that is asked for.

    Returns:
      {"path": its weights file, "fields": the fields of the module, "preprocess": its fields}.

    Raises:
      FileNotFoundError: the folder is no training run, or the run has not finished.
      ValueError: it holds another network.
    """
    workdir = pathlib.Path(workdir)
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
    if not (workdir / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{workdir / WEIGHTS} does not exist: the training run has not finished; "
            "run the same command again to go on"
        )
    return {
        "path": workdir / WEIGHTS,
        "fields": model["fields"],
        "preprocess": model["preprocess"],
    }
