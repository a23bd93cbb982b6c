"""ResNets of Hugging Face transformers: "resnet.encoder.stages.0.layers.0.layer.0.convolution".

Use them with the variant of their depth, "18" to "152".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names

FAMILY = "resnet"
SIDECAR = functools.partial(sidecars.read_published, model_type="resnet")
FIELDS = {"epsilon": 1e-5, "stride_conv": 2, "padding": "both", "stem_stride": 2, "stem_pool": True}
PREPROCESS = {
    "size": (224, 224),
    "resize": 256,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
SIGNATURE = frozenset(
    {
        "embedder.embedder.convolution.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
    }
)

_KIND = {"convolution": "conv", "normalization": "bn"}
_UNIT = re.compile(
    r"encoder\.stages\.(\d)\.layers\.(\d+)\.(?:layer\.(\d)|(shortcut))\.(convolution|normalization)"
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ResNet of transformers."""
    return {name.removeprefix("resnet.") for name in torch_names.bare_names(keys)} >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders."""
    return torch_names.convert(raw, torch_names.Names(_layer))


def _layer(name: str) -> str | None:
    name = name.removeprefix("resnet.")
    if part := _UNIT.fullmatch(name):
        stage, unit, number, shortcut, kind = part.groups()
        ours = _KIND[kind] + ("_proj" if shortcut else str(int(number) + 1))
        return f"block{int(stage) + 1}/unit{int(unit) + 1}/{ours}"
    if part := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)", name):
        return f"{_KIND[part[1]]}_root"
    return "head" if name == "classifier.1" else None
