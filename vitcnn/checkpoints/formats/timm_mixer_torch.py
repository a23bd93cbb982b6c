"""MLP-Mixers of timm: "blocks.0.mlp_tokens.fc1.weight".

The keys do not say how images were normalised (Google's models: mean and deviation 0.5; others not
at all): timm's config.json beside the weights does. timm's gMixer, ResMLP and gMLP are networks
of the same class; their keys and shapes tell them apart, and they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names

FAMILY = "mixer"
SIDECAR = sidecars.read_published
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
    """Whether a file with these keys holds timm's Mixer, or another network of its class."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and axis orders.

    Raises:
      ValueError: the network of the file is not a Mixer.
    """
    arrays = torch_names.convert(raw, _NAMES)
    for name, _, gated in torch_names.mlps(arrays):
        if gated:  # half of the hidden units multiply the other half, and no key says so
            raise ValueError(
                f"the MLP {name!r} is gated (gMixer), and the family 'mixer' does not support "
                "gated MLPs"
            )
    return arrays
