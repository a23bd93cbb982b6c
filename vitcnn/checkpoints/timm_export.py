"""Export to timm: safetensors under timm's names, and the config.json that makes its network."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import traverse_util

from vitcnn import storage
from vitcnn.checkpoints import families
from vitcnn.checkpoints.files import safetensors
from vitcnn.checkpoints.torch_names import STACKS
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
    twin = families.find(family).to_timm(module)
    flat = traverse_util.flatten_dict(variables, sep="/")
    arrays = twin.finished(renamed(flat, twin.layers))
    head = arrays.get(f"{twin.classifier}.weight", ())
    size = image_sizes.pair(module.image_size)
    weights = {
        "input_size": [3, *size],
        "interpolation": preprocess.get("interpolation", "bilinear"),
        **_crop(size, preprocess.get("resize")),
        **{name: list(preprocess[name]) for name in ("mean", "std")},
        "num_classes": len(head),
        "classifier": twin.classifier,
        **twin.weights,
    }
    config = {
        "architecture": twin.architecture,
        "num_classes": len(head),
        "model_args": twin.arguments,
        "pretrained_cfg": weights,
    }
    folder = storage.as_path(folder, "the folder of the weights")
    storage.make_folder(folder)
    with storage.atomic(folder / "model.safetensors") as partial:
        safetensors.write(partial, arrays)
    storage.write_json(folder / "config.json", json.loads(json.dumps(config)))


def _crop(size: tuple[int, int], resize: int | tuple[int, int] | None) -> dict[str, Any]:
    """Returns timm's crop for the `resize` of a `Preprocess`.

    Raises:
      ValueError: timm does not resize to such sides.
    """
    if resize is None:
        return {"crop_pct": 1.0, "crop_mode": "squash"}
    if isinstance(resize, int):
        return {"crop_pct": _share(min(size), resize), "crop_mode": "center"}
    share = _share(size[0], resize[0])
    if [math.floor(side / share) for side in size] != list(resize):
        raise ValueError(
            f"timm has one crop_pct for both sides, and preprocess.resize = {tuple(resize)} makes "
            f"two of {size}"
        )
    return {"crop_pct": share, "crop_mode": "squash"}


def _share(side: int, resize: int) -> float:
    """Returns the share of which timm makes `resize` again: it rounds side / share down."""
    share = side / resize
    return share if math.floor(side / share) == resize else math.nextafter(share, 0)


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
    stacks: dict[str, dict[str, np.ndarray]] = {}
    for name, value in variables.items():
        value = _transposed(name, np.asarray(value, np.float32))
        inside = name.partition("/")[2]
        layer, _, weight = inside.rpartition("/")
        if (key := _name(inside, layers)) is not None:
            arrays[key] = value
            continue
        attention, _, projection = layer.rpartition("/")
        stacked = [(f"{attention}/{s}", projection) for s, ps in STACKS.items() if projection in ps]
        places = ((_name(place, layers), part) for place, part in [(layer, ""), *stacked])
        theirs, part = next((place for place in places if place[0]), (None, ""))
        if theirs is None or weight not in _WEIGHTS:
            raise ValueError(f"{name!r} has no name in timm")
        is_scale = weight == "gamma" and theirs.rpartition(".")[2].startswith("ls")
        key = f"{theirs}.{'gamma' if is_scale else _WEIGHTS[weight]}"
        if part:
            stacks.setdefault(key, {})[part] = value
        else:
            arrays[key] = value
    for key, parts in stacks.items():
        arrays[key] = np.concatenate([parts[p] for p in ("query", "key", "value") if p in parts])
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
    if "/MultiHeadDotProductAttention_" in name:
        inputs = value.shape[0]
        if name.endswith("/out/kernel"):
            value = value.reshape(-1, value.shape[-1])
        elif re.search("/(query|key|value)/", name):
            value = value.reshape(*([inputs] * name.endswith("/kernel")), -1)
    if not name.endswith("/kernel"):
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
