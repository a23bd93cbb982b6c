"""The folder of a training run: weights that come with the fields of their network."""

from __future__ import annotations

import json
import pathlib

from vitcnn.checkpoints.fetch.source import Source

RUN = "run.json"
WEIGHTS = "weights.npz"  # what a finished run leaves
CHECKPOINTS = "checkpoints"  # folder of the states from which a stopped run resumes
SNAPSHOTS = "snapshots"  # folder of the weights that were kept during the training


def is_part(path: pathlib.Path) -> bool:
    """Returns whether a path is a file or folder in the folder of a training run."""
    inside = path.parent.name in (CHECKPOINTS, SNAPSHOTS)
    return inside and (path.parent.parent / RUN).is_file()


def latest_checkpoint(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of the last step in a folder of checkpoints; None without one."""
    steps = [path for path in folder.glob("*") if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name), default=None)


def read(folder: pathlib.Path) -> Source:
    """Returns the weights of a folder that `vitcnn.training.train` wrote.

    Args:
      folder: the working directory of the run; or in it "checkpoints", for its latest weights even
        if the run has not finished, one step, "checkpoints/500", or "snapshots/500.npz".

    Raises:
      FileNotFoundError: the folder is no training run, or the run has not saved weights yet.
    """
    latest = None
    if is_part(folder):
        latest, folder = folder, folder.parent.parent
    elif folder.name == CHECKPOINTS:
        latest = latest_checkpoint(folder)
        if latest is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint yet")
        folder = folder.parent
    run = folder / RUN
    if not run.is_file():
        raise FileNotFoundError(
            f"{folder} is not a training run, because it has no {RUN}; it also has no weights "
            "under a usual name (model.safetensors, pytorch_model.bin). Give the path of the file "
            "that holds the weights"
        )
    model = json.loads(run.read_text()).get("model")
    if model is None:
        raise FileNotFoundError(f"{folder} is not a training run: its {RUN} names no model")
    final = folder / WEIGHTS
    if latest is None and not final.is_file():
        raise FileNotFoundError(
            f"{final} does not exist: the training run has not finished; run the same command "
            f"again to resume it, or give {folder / CHECKPOINTS} for the weights so far"
        )
    return Source(
        latest or final,
        network=(model["family"], model["variant"]),
        fields=model["fields"],
        preprocess=model["preprocess"],
        class_names=tuple(model.get("class_names", ())),
    )
