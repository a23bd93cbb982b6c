"""BiT checkpoints of Google's big_transfer and big_vision, and ours: NumPy archives.

Our parameter names are those of big_transfer, "resnet/block1/unit01/a/group_norm/gamma", except
for the head, which is a 1x1 convolution there. Some files of big_transfer number the convolutions,
"standardized_conv2d_7". The names of big_vision's `bit_paper`, "block1/unit01/gn1/scale", are read
too. `rename` is the inverse, for export.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import google_names

FAMILY = "bit"
DOCUMENTED = True
PREPROCESS = google_names.PREPROCESS

_NUMBERED = re.compile(r"/standardized_conv2d_\d+/")
_UNIT_LAYER = re.compile(r"(block\d/unit\d\d)/(conv|gn)([123]|_proj)/(\w+)")
_NORM = {"scale": "gamma", "bias": "beta"}
_HEAD = {"head/kernel": "resnet/head/conv2d/kernel", "head/bias": "resnet/head/conv2d/bias"}
_ELSEWHERE = {
    "root_block/conv_root/kernel": "resnet/root_block/standardized_conv2d/kernel",
    "norm-pre-head/scale": "resnet/group_norm/gamma",
    "norm-pre-head/bias": "resnet/group_norm/beta",
    **{theirs: ours for ours, theirs in _HEAD.items()},
}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds one of Google's BiTs, or ours."""
    names = {_name(key) for key in google_names.bare(keys)}
    return {"resnet/root_block/standardized_conv2d/kernel", "resnet/group_norm/gamma"} <= names


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names."""
    arrays = {}
    for key, value in google_names.arrays(raw).items():
        name = _name(key)
        if name.endswith(("/gamma", "/beta")):
            value = google_names.flat(value)
        elif name == "head/kernel" and value.shape[:2] == (1, 1):
            value = value.reshape(value.shape[2:])
        arrays[f"params/{name}"] = value
    return arrays


def rename(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns our arrays under big_transfer's names, with the head as a 1x1 convolution."""
    return {
        _HEAD.get(key, key): value[None, None] if key == "head/kernel" else value
        for key, value in arrays.items()
    }


def _name(key: str) -> str:
    """Returns our name."""
    if key in _ELSEWHERE:
        return _ELSEWHERE[key]
    if part := _UNIT_LAYER.fullmatch(key):
        unit, kind, number, weight = part.groups()
        layer = {"1": "a", "2": "b", "3": "c", "_proj": "a/proj"}[number]
        end = "standardized_conv2d" if kind == "conv" else "group_norm"
        weight = _NORM.get(weight, weight) if kind == "gn" else weight
        return f"resnet/{unit}/{layer}/{end}/{weight}"
    return _NUMBERED.sub("/standardized_conv2d/", key)
