"""BiT of timm, its "resnetv2_50x1_bit" to "152x4": "stages.0.blocks.0.norm1.weight".

Use them with the variant of their name, "R50x1" to "R152x4". The keys do not say how images were
normalised: timm's config.json beside the weights does. timm's other networks of this class, which
have batch norms or a stem of three convolutions, are of the family "resnet"; see
`timm_resnetv2_torch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names

FAMILY = "bit"
SIDECAR = sidecars.read_published
PREPROCESS = {"interpolation": "bilinear"}
SIGNATURE = frozenset(
    {"stem.conv.weight", "stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"}
)

_BATCH_NORM = "stages.0.blocks.0.norm1.running_mean"
_HEAD = "params/head/kernel"
_NAMES = torch_names.Names(
    layer=torch_names.bit(
        r"stages\.(\d)\.blocks\.(\d+)",
        {
            "stem.conv": "resnet/root_block/standardized_conv2d",
            "norm": "resnet/group_norm",
            "head.fc": "head",
        },
    ),
    refused={
        r"(stem|.*\.downsample)\.norm\..+": "a ResNet with norms after its convolutions",
    },
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds timm's BiT."""
    names = torch_names.bare_names(keys)
    return names >= SIGNATURE and _BATCH_NORM not in names


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders; timm's head is a 1x1 convolution.

    Raises:
      ValueError: the network of the file is not a BiT.
    """
    arrays = torch_names.convert(raw, _NAMES)
    head = arrays.get(_HEAD)
    if head is not None and head.shape[:-2] == (1, 1):
        arrays[_HEAD] = head[0, 0]
    return arrays
