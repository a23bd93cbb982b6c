"""The folder of a training run: weights that come with the fields of their network."""

from __future__ import annotations

from vitcnn import storage
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.checkpoints.files import state
from vitcnn.storage import Path

RUN = "run.json"
WEIGHTS = "weights.npz"  # what a finished run leaves
CHECKPOINTS = "checkpoints"  # folder of the states from which a stopped run resumes
SNAPSHOTS = "snapshots"  # folder of the weights that were kept during the training
STATE = "state.json"  # in the folder of the states: which arrays they have


def is_run(path: Path) -> bool:
    """Returns whether a path is the folder of a run, its checkpoints, or a state or snapshot."""
    in_run = path.name == CHECKPOINTS and storage.exists(path.parent / RUN)
    return in_run or storage.exists(path / RUN) or _is_part(path)


def _is_part(path: Path) -> bool:
    inside = path.parent.name in (CHECKPOINTS, SNAPSHOTS)
    return inside and storage.exists(path.parent.parent / RUN)


def steps_saved(folder: Path) -> list[int]:
    """Returns the steps of the states in a folder, in order.

    States in a bucket are those that `STATE` names, because a bucket may list a new one late.
    """
    try:
        listed = (storage.read_json(folder / STATE) or {}).get("steps")
    except ValueError:  # damaged, which is an error when a state is restored
        listed = None
    if listed is None and storage.is_remote(folder):
        return []
    if listed is None:
        listed = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return sorted(listed)


def checkpoint(folder: Path, step: int) -> Path:
    """Returns the path of the state after a step: a folder of orbax, or one file if it is there.

    Args:
      folder: folder of the states.
      step: number of steps that had been taken.
    """
    in_one_file = folder / f"{step}{state.SUFFIX}"
    is_file = storage.is_remote(folder) or storage.exists(in_one_file)
    return in_one_file if is_file else folder / str(step)


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the state of the last step in a folder of states; None without one."""
    steps = steps_saved(folder)
    return checkpoint(folder, steps[-1]) if steps else None


def read(folder: Path) -> Source:
    """Returns the weights of a folder that `vitcnn.training.train` wrote.

    Args:
      folder: the working directory of the run; or in it "checkpoints", for its latest weights even
        if the run has not finished, one step, "checkpoints/500", or "snapshots/500.npz".

    Raises:
      FileNotFoundError: the folder is no training run, or the run has not saved weights yet.
    """
    latest = None
    if _is_part(folder):
        latest, folder = folder, folder.parent.parent
        if latest.name.isdigit():
            latest = checkpoint(latest.parent, int(latest.name))
    elif folder.name == CHECKPOINTS:
        latest = latest_checkpoint(folder)
        if latest is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint yet")
        folder = folder.parent
    record = storage.read_json(folder / RUN)
    if record is None:
        raise FileNotFoundError(
            f"{folder} is not a training run, because it has no {RUN}; it also has no weights "
            "under a usual name (model.safetensors, pytorch_model.bin). Give the path of the file "
            "that holds the weights"
        )
    model = record.get("model")
    if model is None:
        raise FileNotFoundError(f"{folder} is not a training run: its {RUN} names no model")
    final = folder / WEIGHTS
    if latest is None and not storage.exists(final):
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
