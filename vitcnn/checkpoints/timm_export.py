"""Export to timm: safetensors under timm's names, and the config.json that makes its network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import traverse_util

from vitcnn import storage
from vitcnn.checkpoints import families
from vitcnn.checkpoints.files import safetensors
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.layers import image_sizes

if TYPE_CHECKING:
    import flax.linen as nn

_WEIGHTS = {
    **{"kernel": "weight", "scale": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}


def export_timm(
    folder: str | os.PathLike,
    family: str,
    module: nn.Module,
    variables: Mapping[str, Any],
    preprocess: Mapping[str, Any],
) -> None:
    """Writes model.safetensors and config.json, which timm and `vitcnn.load` read.

        timm.create_model("local-dir:FOLDER", pretrained=True)

    Args:
      folder: where the two files are written; it is made if it does not exist.
      family: the family of the network.
      module: the network.
      variables: its variables; the file has float32.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess`, mean and std among them.

    Raises:
      ValueError: timm has no network that computes the same; the message names the part.
    """
    if family not in families.names():
        raise ValueError(f"timm has no networks of the family {family!r}")
    reader = families.find(family)
    architecture, arguments = reader.to_timm(module)
    arrays = renamed(traverse_util.flatten_dict(variables, sep="/"), reader.TIMM_LAYERS)
    if hasattr(reader, "timm_arrays"):
        arrays = reader.timm_arrays(arrays, module)
    rows, columns = image_sizes.pair(module.image_size)
    resize = preprocess.get("resize")
    weights = {
        "input_size": [3, rows, columns],
        "interpolation": preprocess.get("interpolation", "bilinear"),
        "crop_pct": 1.0 if resize is None else min(rows, columns) / resize,
        "crop_mode": "squash" if resize is None else "center",
        **{name: list(preprocess[name]) for name in ("mean", "std")},
        "num_classes": module.num_classes,
        **reader.TIMM_CFG,
    }
    config = {
        "architecture": architecture,
        "num_classes": module.num_classes,
        "model_args": arguments,
        "pretrained_cfg": weights,
    }
    folder = storage.as_path(folder, "the folder of the weights")
    storage.make_folder(folder)
    with storage.atomic(folder / "model.safetensors") as partial:
        safetensors.write(partial, arrays)
    storage.write_json(folder / "config.json", json.loads(json.dumps(config)))


def renamed(variables: Mapping[str, Any], layers: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns our variables under timm's names and in torch's axis orders.

    Args:
      variables: by full name.
      layers: pattern of our name of a layer, or of an array that belongs to no layer -> timm's
        name. In the latter {0} is the first group of the pattern; {0-1} and {0+1} count it from
        another number.

    Raises:
      ValueError: an array has no name in timm.
    """
    arrays: dict[str, np.ndarray] = {}
    thirds: dict[str, dict[str, np.ndarray]] = {}
    for name, value in variables.items():
        value = _transposed(name, np.asarray(value, np.float32))
        inside = name.partition("/")[2]
        layer, _, weight = inside.rpartition("/")
        projection = re.fullmatch(rf"(.*{ATTENTION})/(query|key|value)", layer)
        if (key := _name(inside, layers)) is not None:
            arrays[key] = value
            continue
        theirs = _name(f"{projection[1]}/qkv" if projection else layer, layers)
        if theirs is None or weight not in _WEIGHTS:
            raise ValueError(f"{name!r} has no name in timm")
        is_scale = weight == "gamma" and theirs.rpartition(".")[2].startswith("ls")
        key = f"{theirs}.{'gamma' if is_scale else _WEIGHTS[weight]}"
        if projection:
            thirds.setdefault(key, {})[projection[2]] = value
        else:
            arrays[key] = value
    for key, parts in thirds.items():
        arrays[key] = np.concatenate([parts[part] for part in ("query", "key", "value")])
    return arrays


def _name(ours: str, layers: Mapping[str, str]) -> str | None:
    for pattern, theirs in layers.items():
        if part := re.fullmatch(pattern, ours):
            for i, group in enumerate(part.groups()):
                if group.isdigit():
                    theirs = theirs.replace(f"{{{i}-1}}", str(int(group) - 1))
                    theirs = theirs.replace(f"{{{i}+1}}", str(int(group) + 1))
                theirs = theirs.replace(f"{{{i}}}", group)
            return theirs
    return None


def _transposed(name: str, value: np.ndarray) -> np.ndarray:
    """Returns an array in torch's axis order, without an axis of heads."""
    if f"/{ATTENTION}/" in name:
        inputs = value.shape[0]
        if name.endswith("/out/kernel"):
            value = value.reshape(-1, value.shape[-1])
        elif name.endswith("/kernel"):
            value = value.reshape(inputs, -1)
        elif not name.endswith("/out/bias"):
            value = value.reshape(-1)
    if not name.endswith("/kernel"):
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
