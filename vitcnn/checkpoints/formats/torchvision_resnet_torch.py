"""ResNets of torchvision, and timm's of the same names: "layer1.0.conv1.weight", "downsample.0".

Use them with the variant of their depth, "18" to "152". Their bottlenecks halve the grid in the
3x3 convolution ("version 1.5"), as those variants do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names

FAMILY = "resnet"
SIDECAR = sidecars.read_published
FIELDS = {"epsilon": 1e-5, "stride_conv": 2, "padding": "both", "stem_stride": 2, "stem_pool": True}
PREPROCESS = {
    "size": (224, 224),
    "resize": 256,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
SIGNATURE = frozenset({"conv1.weight", "bn1.running_mean", "layer4.0.conv2.weight"})

_ROOT = {"conv1": "conv_root", "bn1": "bn_root", "fc": "head"}
_SHORTCUT = {"0": "conv_proj", "1": "bn_proj"}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds such a ResNet: four stages, batch norms."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders.

    Raises:
      ValueError: the units have layers other than convolutions and norms.
    """
    names = torch_names.Names(
        _layer,
        refused={
            r".*\.downsample\.2\..+": "a ResNet-D, whose shortcuts pool first",
            r".*\.se\..+": "a squeeze-and-excitation network",
        },
    )
    return torch_names.convert(raw, names)


def _layer(name: str) -> str | None:
    if part := re.fullmatch(r"layer(\d)\.(\d+)\.(?:((?:conv|bn)\d)|downsample\.([01]))", name):
        return f"block{part[1]}/unit{int(part[2]) + 1}/{part[3] or _SHORTCUT[part[4]]}"
    return _ROOT.get(name)
