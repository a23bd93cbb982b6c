"""ResNet-50 of Keras (version 1), its layers' weights in a NumPy archive: "res2a_branch2a/kernel".

Keras feeds it BGR pixels of 0 to 255 less a mean. Here the order is folded into the first
convolution, so the network takes RGB like every other. Use it with variant "50-keras".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

FAMILY = "resnet"
PREPROCESS = {
    "size": (224, 224),
    "resize": 256,
    "interpolation": "bilinear",
    # (x - mean) / std of images in [0, 1] is the pixel less the mean.
    "mean": (123.68 / 255, 116.779 / 255, 103.939 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
}

_UNIT_LAYER = re.compile(r"(res|bn)(\d)([a-z])_branch(1|2[abc])")
_BRANCH = {"1": "_proj", "2a": "1", "2b": "2", "2c": "3"}
_ROOT = {"conv1": "conv_root", "bn_conv1": "bn_root", "fc1000": "head"}
_WEIGHT = {
    "kernel": "params/{}/kernel",
    "bias": "params/{}/bias",
    "gamma": "params/{}/scale",
    "beta": "params/{}/bias",
    "moving_mean": "batch_stats/{}/mean",
    "moving_variance": "batch_stats/{}/var",
}


def matches(keys: Iterable[str]) -> bool:
    """Whether these are the names of Keras' ResNet-50, version 1."""
    return {"conv1/kernel", "bn_conv1/moving_mean", "res2a_branch2a/kernel"} <= set(keys)


def convert(raw: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, the first convolution taking RGB."""
    arrays = {_name(key): np.asarray(value, np.float32) for key, value in raw.items()}
    root = arrays["params/conv_root/kernel"]  # [row, column, channel in, channel out]
    return {**arrays, "params/conv_root/kernel": np.ascontiguousarray(root[:, :, ::-1])}


def _name(key: str) -> str:
    layer, _, weight = key.rpartition("/")
    if part := _UNIT_LAYER.fullmatch(layer):
        kind, stage, unit, branch = part.groups()
        # Keras counts the stem as stage 1 and its units by letters.
        ours = f"block{int(stage) - 1}/unit{ord(unit) - ord('a') + 1}/"
        ours += ("conv" if kind == "res" else "bn") + _BRANCH[branch]
    else:
        ours = _ROOT.get(layer)
    if ours is None or weight not in _WEIGHT:
        return key  # the merge will list it as unexpected
    return _WEIGHT[weight].format(ours)
