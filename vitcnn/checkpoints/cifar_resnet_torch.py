"""CIFAR-10 ResNets (20, 32, 44, 56, 110) of PyTorch: "module.layer1.0.conv1.weight".

Use them with the variant of their depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

FAMILY = "resnet"
PREPROCESS = {
    "size": (32, 32),
    "resize": 32,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}

_UNIT_LAYER = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)")
_ROOT = {"conv1": "conv_root", "bn1": "bn_root", "linear": "head"}
_WEIGHT = {
    "weight": "params/{}/kernel",
    "bias": "params/{}/bias",
    "running_mean": "batch_stats/{}/mean",
    "running_var": "batch_stats/{}/var",
}


def matches(keys: Iterable[str]) -> bool:
    """Whether these are the names of a CIFAR ResNet: three stages, units of two convolutions."""
    names = {key.removeprefix("module.") for key in keys}
    deeper = {"layer4.0.conv1.weight", "layer1.0.conv3.weight"}
    return {"conv1.weight", "layer3.0.conv2.weight", "linear.weight"} <= names and not (
        deeper & names
    )


def convert(raw: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders."""
    arrays = {}
    for key, value in raw.items():
        name = _name(key.removeprefix("module."))
        if name is None:
            continue
        if value.ndim == 4:  # [out, in, row, column]
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim == 2:  # [out, in]
            value = value.T
        arrays[name] = np.asarray(value, np.float32)
    return arrays


def _name(key: str) -> str | None:
    """Returns our name of an array; None for the count of batches seen, which nothing reads."""
    layer, _, weight = key.rpartition(".")
    if weight == "num_batches_tracked":
        return None
    if part := _UNIT_LAYER.fullmatch(layer):
        stage, unit, kind, number = part.groups()
        ours = f"block{stage}/unit{int(unit) + 1}/{kind}{number}"
    else:
        ours = _ROOT.get(layer)
    if ours is None or weight not in _WEIGHT:
        return key  # the merge will list it as unexpected
    name = _WEIGHT[weight].format(ours)
    is_norm = ours.rpartition("/")[2].startswith("bn")
    return name.replace("/kernel", "/scale") if is_norm else name
