"""CIFAR-10 ResNets (20, 32, 44, 56, 110) of PyTorch: "module.layer1.0.conv1.weight".

Use them with the variant of their depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names

FAMILY = "resnet"
SIDECAR = sidecars.read_published
FIELDS = {
    "epsilon": 1e-5,
    "padding": "both",
    "shortcut": "pad",
    "stem_stride": 1,
    "stem_pool": False,
    "stride_conv": 2,
}
PREPROCESS = {
    "size": (32, 32),
    "resize": 32,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
SIGNATURE = frozenset({"conv1.weight", "layer3.0.conv2.weight", "linear.weight"})

_ROOT = {"conv1": "conv_root", "bn1": "bn_root", "linear": "head"}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a CIFAR ResNet: three stages of two-layer units."""
    names = torch_names.bare_names(keys)
    deeper = {"layer4.0.conv1.weight", "layer1.0.conv3.weight"}
    return names >= SIGNATURE and not deeper & names


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders."""
    return torch_names.convert(raw, torch_names.Names(_layer))


def _layer(name: str) -> str | None:
    if part := re.fullmatch(r"layer(\d)\.(\d+)\.((conv|bn)\d)", name):
        return f"block{part[1]}/unit{int(part[2]) + 1}/{part[3]}"
    return _ROOT.get(name)
