"""MLP-Mixers of timm: "blocks.0.mlp_tokens.fc1.weight".

The keys do not say how images were normalised (Google's models: mean and deviation 0.5; others not
at all): timm's config.json beside the weights does. timm's gMixer, ResMLP and gMLP are of one class
with its Mixer; their files are known by their keys and shapes, and refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import torch_names

FAMILY = "mixer"
FIELDS = {"gelu": "exact"}
PREPROCESS = {"interpolation": "bicubic"}
SIGNATURE = frozenset({"stem.proj.weight", "blocks.0.mlp_channels.fc1.weight"})

_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"blocks\.(\d+)\.(.+)",
        {
            "norm1": "LayerNorm_0",
            "mlp_tokens.fc1": "token_mixing/Dense_0",
            "mlp_tokens.fc2": "token_mixing/Dense_1",
            "norm2": "LayerNorm_1",
            "mlp_channels.fc1": "channel_mixing/Dense_0",
            "mlp_channels.fc2": "channel_mixing/Dense_1",
        },
        {"stem.proj": "stem", "norm": "pre_head_layer_norm", "head": "head"},
        "MixerBlock_{}",
    ),
    refused={
        r"blocks\.\d+\.(linear_tokens\..+|ls[12]|norm[12]\.(alpha|beta))": "a ResMLP",
        r"blocks\.\d+\.(norm|mlp_channels\.gate)\..+": "a gMLP",
        r"stem\.norm\..+": "a Mixer that normalises its patches",
    },
)


def matches(keys: Iterable[str]) -> bool:
    """Whether these are the names of timm's Mixer, or of one of the networks of its class."""
    return torch_names.stripped(keys).keys() >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders.

    Raises:
      ValueError: the file is of a network that is not a Mixer.
    """
    arrays = torch_names.convert(raw, _NAMES)
    shapes = {name: np.shape(raw[key]) for name, key in torch_names.stripped(raw).items()}
    for name, shape in shapes.items():
        after = name.replace(".fc1.weight", ".fc2.weight")
        # In a gated MLP one half of the hidden units multiplies the other, and no key says so.
        if after != name and shape[:1] == tuple(2 * n for n in shapes.get(after, ())[1:]):
            raise ValueError(
                f"{name!r} makes twice as many numbers as {after!r} reads: they are of a Mixer "
                "with gated MLPs (gMixer), which this family has not"
            )
    return arrays
