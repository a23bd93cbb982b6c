"""ResNets of Keras (version 1): their HDF5 files, or a NumPy archive of the same weights.

Keras has named the layers in two ways, "res2a_branch2a" and, since 2019, "conv2_block1_1_conv". A
weight is "<layer>/<weight>" in an archive. In HDF5 it is "<layer>/<layer>/<weight>", with ":0" at
its end if TensorFlow wrote it; or, from Keras 1, "<layer>/<layer>_<weight>_1:0", where W is the
kernel and running_std the variance.

Keras feeds the network BGR pixels from 0 to 255, minus a mean. Here the first convolution absorbs
the order, so that the network takes RGB like every other. Use it with the variants "50-keras",
"101-keras" and "152-keras".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints.files.contents import renamed

FAMILY = "resnet"
FIELDS = {
    "epsilon": 1.001e-5,
    "stride_conv": 1,
    "padding": "both",
    "stem_stride": 2,
    "stem_pool": True,
}
DOCUMENTED = True  # keras.applications has one preprocessing for all of its ResNets
PREPROCESS = {
    "size": (224, 224),
    "resize": 256,
    "interpolation": "bilinear",
    # (x - mean) / std of images in [0, 1] is the pixel minus the mean.
    "mean": (123.68 / 255, 116.779 / 255, 103.939 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
}

_KEY = re.compile(r"(?P<layer>[^/]+)/(?:(?P=layer)[/_])?(?P<weight>[A-Za-z_]+?)(?:_\d+)?(?::0)?")
_OLD = re.compile(r"(res|bn)(\d)([a-z])_branch(1|2[abc])")
_NEW = re.compile(r"conv(\d)_block(\d+)_([0123])_(conv|bn)")
_OLD_BRANCH = {"1": "_proj", "2a": "1", "2b": "2", "2c": "3"}
_ROOT = {
    **{"conv1": "conv_root", "bn_conv1": "bn_root", "fc1000": "head"},
    **{"conv1_conv": "conv_root", "conv1_bn": "bn_root", "predictions": "head", "probs": "head"},
}
_WEIGHT = {
    "kernel": "params/{}/kernel",
    "bias": "params/{}/bias",
    "gamma": "params/{}/scale",
    "beta": "params/{}/bias",
    "moving_mean": "batch_stats/{}/mean",
    "moving_variance": "batch_stats/{}/var",
    "W": "params/{}/kernel",
    "b": "params/{}/bias",
    "running_mean": "batch_stats/{}/mean",
    "running_std": "batch_stats/{}/var",
}
_REQUIRED = {
    "params/conv_root/kernel",
    "batch_stats/bn_root/mean",
    "params/block1/unit1/conv1/kernel",
}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ResNet of Keras, version 1."""
    return _REQUIRED.issubset(name for key in keys if (name := _name(key)) != key)


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, the first convolution taking RGB.

    Raises:
      ValueError: two weights have one name.
    """
    keys = renamed((_name(key), key) for key in raw)
    arrays = {name: np.asarray(raw[key], np.float32) for name, key in keys.items()}
    root = arrays["params/conv_root/kernel"]  # [row, column, channel in, channel out]
    return {**arrays, "params/conv_root/kernel": np.ascontiguousarray(root[:, :, ::-1])}


def _name(key: str) -> str:
    """Returns our name of a weight; if there is none, its key, which the merge then reports."""
    parts = _KEY.fullmatch(key)
    if parts is None or parts["weight"] not in _WEIGHT:
        return key
    layer = parts["layer"]
    if old := _OLD.fullmatch(layer):
        kind, stage, unit, branch = old.groups()
        number, branch = ord(unit) - ord("a") + 1, _OLD_BRANCH[branch]  # units were letters
    elif new := _NEW.fullmatch(layer):
        stage, number, branch, kind = new.groups()
        branch = "_proj" if branch == "0" else branch
    elif layer in _ROOT:
        return _WEIGHT[parts["weight"]].format(_ROOT[layer])
    else:
        return key
    # Keras counts the stem as stage 1.
    ours = f"block{int(stage) - 1}/unit{number}/{'bn' if kind == 'bn' else 'conv'}{branch}"
    return _WEIGHT[parts["weight"]].format(ours)
