"""ResNets of version 2 of timm, "resnetv2_18" to "resnetv2_152d": "stages.0.blocks.0.norm1.weight".

They have batch norms, or a stem of three convolutions; timm's BiTs have neither. Use them with the
variant of timm's name. The keys do not say how images were normalised: timm's config.json beside
the weights does.
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
    **{"epsilon": 1e-5, "stride_conv": 2, "padding": "both", "preactivation": True},
    **{"stem_stride": 2, "stem_pool": True},
}
UNSEEN = ("shortcut_pool",)
PREPROCESS = {"interpolation": "bicubic"}
SIGNATURE = frozenset({"stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"})

_OTHERS = frozenset({"stem.conv1.weight", "stages.0.blocks.0.norm1.running_mean"})
_HEAD = "params/head/kernel"
_ROOT = {
    **{"stem.conv": "conv_root", "stem.conv1": "conv_root1", "stem.norm1": "{norm}_root1"},
    **{"stem.conv2": "conv_root2", "stem.norm2": "{norm}_root2", "stem.conv3": "conv_root"},
    **{"norm": "{norm}_final", "head.fc": "head"},
}
_UNIT = re.compile(r"stages\.(\d)\.blocks\.(\d+)\.(?:(norm|conv)(\d)|downsample\.conv)")
_REFUSED = {
    r".*norm\d?\.v": "a ResNet with EvoNorm",
    r".*norm\d?\.(eps|tau)": "a ResNet with filter response normalisation",
    r"(stem|.*\.downsample)\.norm\..+": "a ResNet with norms after its convolutions",
}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ResNet of version 2 that is no BiT."""
    names = torch_names.bare_names(keys)
    return names >= SIGNATURE and bool(names & _OTHERS)


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders; timm's head is a 1x1 convolution.

    Raises:
      ValueError: the norms of the network of the file are not those of `module`.
    """
    norm = torch_names.norm_of(torch_names.bare_names(raw), module)

    def layer(name: str) -> str | None:
        part = _UNIT.fullmatch(name)
        if part is None:
            ours = _ROOT.get(name)
            return ours and ours.format(norm=norm)
        stage, unit, kind, number = part.groups()
        ours = f"{norm if kind == 'norm' else kind}{number}" if kind else "conv_proj"
        return f"block{int(stage) + 1}/unit{int(unit) + 1}/{ours}"

    arrays = torch_names.convert(raw, torch_names.Names(layer, refused=_REFUSED))
    head = arrays.get(_HEAD)
    if head is not None and head.shape[:-2] == (1, 1):
        arrays[_HEAD] = head[0, 0]
    return arrays
