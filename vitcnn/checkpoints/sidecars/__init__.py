"""Sidecars: JSON files next to weights that say what the arrays do not.

`read_own` reads the file that `export` writes. `read_published` reads the files of timm and of
Hugging Face transformers. Each format declares which of the two it reads. Every key of a published
file is read, or is known not to change what a network computes, or is refused by name.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from vitcnn.checkpoints.sidecars import open_clip, processor, timm, transformers
from vitcnn.checkpoints.sidecars.facts import parse
from vitcnn.checkpoints.sidecars.sidecar import Sidecar

OWN = ".vitcnn.json"  # replaces the suffix of the weights: a.npz has a.vitcnn.json
PUBLISHED = (timm.FILE, processor.FILE, open_clip.FILE)


def read_own(path: pathlib.Path) -> Sidecar:
    """Returns what `export` wrote next to an archive.

    Raises:
      ValueError: the file is damaged, or has a key that `export` does not write.
    """
    path = path.with_suffix(OWN)
    if not path.is_file():
        return Sidecar()
    try:
        content = json.loads(path.read_text("utf-8"))
        if others := content.keys() - {"preprocess", "fields"}:
            raise ValueError(f"{min(others)!r} is neither 'preprocess' nor 'fields'")
        return Sidecar(
            dict(content.get("preprocess", {})), dict(content.get("fields", {})), path.name
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path.name}, which says how the weights next to it are used, is damaged: {error}; "
            "delete it and pass preprocess"
        ) from error


def read_published(path: pathlib.Path, model_type: str | None = None) -> Sidecar:
    """Returns what the JSON files of timm or transformers say, in the folder of a checkpoint.

    Args:
      path: the checkpoint.
      model_type: transformers' word for the network of the format, "vit", "resnet" or "bit"; used
        where config.json does not say which library wrote it. None for timm and its relatives.

    Raises:
      ValueError: such a file is damaged, lacks a field, has a strange value or an unknown key, or
        asks for something that vitcnn does not support; the message names the file and the field.
    """
    config, steps, clip = (_json(path.parent / name) for name in PUBLISHED)
    if clip and not config:  # a network of timm in a file of open_clip
        return open_clip.read(clip)
    if "model_type" in config and config["model_type"] != timm.WRAPPER:
        network = transformers.read(config)
    elif timm.wrote(config):
        network = timm.read(config)
    elif config and model_type is not None:
        network = transformers.read({"model_type": model_type, **config})
    elif config:
        raise ValueError(
            f"{timm.FILE} beside the weights has neither the architecture of timm nor the "
            f"model_type of transformers, so vitcnn cannot tell what {', '.join(list(config)[:3])} "
            "mean; move the file away if it does not describe these weights"
        )
    else:
        network = Sidecar()
    if steps and not network.preprocess:
        network = network.with_preprocess(processor.read(steps), processor.FILE)
    return network


def check_architecture(path: pathlib.Path) -> None:
    """Raises ValueError if config.json beside weights names a network that vitcnn does not support.

    It says more about weights of an unknown format than their keys do.
    """
    config = _json(path.parent / timm.FILE)
    if timm.wrote(config) and timm.knows(str(config.get("architecture"))):
        timm.read({"architecture": config["architecture"]})


def read_open_clip(path: pathlib.Path) -> Sidecar:
    """Returns what open_clip_config.json says, in the folder of a checkpoint.

    Raises:
      ValueError: the file is damaged, lacks a field, has a strange value or an unknown key, or asks
        for something that vitcnn does not support; the message names the field.
    """
    config = _json(path.with_name(open_clip.FILE))
    return open_clip.read(config) if config else Sidecar()


def _json(path: pathlib.Path) -> dict[str, Any]:
    return parse(path.read_bytes(), path.name) if path.is_file() else {}
