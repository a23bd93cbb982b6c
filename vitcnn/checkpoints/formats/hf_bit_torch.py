"""BiT of Hugging Face transformers: "bit.encoder.stages.0.layers.0.norm1.weight".

Files of `BitForImageClassification`, `BitModel` (which has no "bit.") and `BitBackbone` (which has
no head). Use them with the variant of their size, "R50x1" to "R152x4". The keys say neither
how images were normalised, which preprocessor_config.json beside the weights does, nor how the
network pads, which has to be the default, `global_padding` None.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names
from vitcnn.checkpoints.files.contents import renamed

FAMILY = "bit"
SIDECAR = functools.partial(sidecars.read_published, model_type="bit")
PREPROCESS = {"interpolation": "bicubic"}
SIGNATURE = frozenset({"embedder.convolution.weight", "encoder.stages.0.layers.0.norm1.weight"})

_NAMES = torch_names.Names(
    layer=torch_names.bit(
        r"encoder\.stages\.(\d)\.layers\.(\d+)",
        {
            "embedder.convolution": "resnet/root_block/standardized_conv2d",
            "norm": "resnet/group_norm",
            "classifier.1": "head",
        },
    ),
    refused={
        r"(embedder|.*\.downsample)\.norm\..+": (
            "a ResNet with norms after its convolutions (layer_type 'bottleneck')"
        ),
    },
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a BiT of transformers."""
    return {name.removeprefix("bit.") for name in torch_names.bare_names(keys)} >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders.

    Raises:
      ValueError: the network of the file is not a BiT.
    """
    names = torch_names.stripped(raw)
    bare = renamed((name.removeprefix("bit."), key) for name, key in names.items())
    return torch_names.convert({name: raw[key] for name, key in bare.items()}, _NAMES)
