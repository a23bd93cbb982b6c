"""ResNets of torchvision, and timm's of the same names: "layer1.0.conv1.weight", "downsample.0".

ResNeXts, wide ResNets, ResNet-C, -D, -S and -T, SE- and ECA-ResNets, ResNet-RS and anti-aliased
ones have these names too. Use them with the variant of their depth, "18" to "200", or of timm's
name, such as "resnext50_32x4d". Bottlenecks halve the grid in their 3x3 convolution ("version
1.5"), as those variants do.

No array shows how an anti-aliased network halves its grid (`downsample`): timm's config.json beside
the weights does, or the variant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names

FAMILY = "resnet"
SIDECAR = sidecars.read_published
FIELDS = {"epsilon": 1e-5, "stride_conv": 2, "padding": "both", "stem_stride": 2, "stem_pool": True}
UNSEEN = ("downsample",)
PREPROCESS = {
    "size": (224, 224),
    "resize": 256,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
SIGNATURE = frozenset({"bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv2.weight"})

_ROOT = {
    **{"conv1": "conv_root", "bn1": "{norm}_root", "fc": "head"},
    **{"conv1.0": "conv_root1", "conv1.1": "{norm}_root1"},
    **{"conv1.3": "conv_root2", "conv1.4": "{norm}_root2", "conv1.6": "conv_root"},
    **{"maxpool.0": "conv_pool", "maxpool.1": "{norm}_pool"},
}
_ATTENTION = {"fc1": "se/reduce", "fc2": "se/expand", "conv": "eca"}
_UNIT = re.compile(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([012])|se\.(fc1|fc2|conv))")
_POOLED_SHORTCUT = re.compile(r"layer\d\.0\.downsample\.2\.weight")


def fields(raw: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns whether shortcuts pool, which the numbers of their layers tell."""
    return {"shortcut_pool": _pools_shortcuts(torch_names.bare_names(raw))}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds such a ResNet of four stages."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders.

    Raises:
      ValueError: the shortcuts or the norms of the network of the file are not those of `module`.
    """
    bare = torch_names.bare_names(raw)
    pools = _pools_shortcuts(bare)
    if module is not None and pools != module.shortcut_pool:
        what = "pool first, as those of a ResNet-D" if pools else "do not pool first"
        raise ValueError(
            f"its shortcuts {what}, and those of the network {'do not' if pools else 'do'}: set "
            f"shortcut_pool={pools}, or take another variant"
        )
    norm = torch_names.norm_of(bare, module)
    # timm's shortcuts have a pool in front of the convolution, which may be the identity.
    first = 1 if pools else 0
    shortcut = {str(first): "conv_proj", str(first + 1): f"{norm}_proj"}

    def layer(name: str) -> str | None:
        part = _UNIT.fullmatch(name)
        if part is None:
            ours = _ROOT.get(name)
            return ours and ours.format(norm=norm)
        stage, unit, kind, number, downsample, attention = part.groups()
        if kind:
            ours = f"{norm if kind == 'bn' else kind}{number}"
        else:
            ours = _ATTENTION[attention] if attention else shortcut.get(downsample)
        return ours and f"block{stage}/unit{int(unit) + 1}/{ours}"

    arrays = torch_names.convert(raw, torch_names.Names(layer))
    for name, value in arrays.items():
        # Their convolutions are along one axis, or along none.
        if re.search(r"/(se/reduce|se/expand|eca)/kernel$", name) and value.shape[:2] == (1, 1):
            arrays[name] = value[0, 0]
    return arrays


def _pools_shortcuts(bare: Iterable[str]) -> bool:
    return any(map(_POOLED_SHORTCUT.fullmatch, bare))
