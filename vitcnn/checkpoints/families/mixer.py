"""How timm and files describe a Mixer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints import timm_networks
from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts

NAMES = {"mixer": "", "mlp-mixer": ""}
UNSEEN = ("gelu",)
OTHER_NAMES: dict[str, str] = {}


def from_arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields that the shapes of the arrays show."""
    rows, columns, _, width = shapes["params/stem/kernel"]
    blocks = {m[1] for name in shapes if (m := re.search(r"/MixerBlock_(\d+)/", name))}
    patches, tokens = shapes["params/MixerBlock_0/token_mixing/Dense_0/kernel"]
    fields = {
        "width": width,
        "depth": len(blocks),
        "patch": rows if rows == columns else (rows, columns),
        "tokens_mlp_dim": tokens,
        "channels_mlp_dim": shapes["params/MixerBlock_0/channel_mixing/Dense_0/kernel"][1],
        "num_classes": shapes.get("params/head/bias", (0,))[0],
    }
    side = math.isqrt(patches)
    if side * side == patches:
        fields["image_size"] = side * rows if rows == columns else (side * rows, side * columns)
    return fields


SIGNATURE = {"stem.proj.weight", "blocks.0.mlp_channels.fc1.weight"}
LAYERS = timm_networks.LAYERS | timm_networks.TOKEN_LAYERS | {"MixerBlock", "MlpMixer"}


def describe(network: Any) -> tuple[dict[str, Any], str]:
    """Returns the fields of a network of timm, or why our Mixer is no such network."""
    if "GELU" not in timm_networks.layers(network):
        return {}, "activations other than GELU"
    block = network.blocks[0]
    return {
        "width": network.stem.proj.out_channels,
        "depth": len(network.blocks),
        "tokens_mlp_dim": block.mlp_tokens.fc1.out_features,
        "channels_mlp_dim": block.mlp_channels.fc1.out_features,
        "patch": timm_networks.side(network.stem.patch_size),
        "image_size": timm_networks.side(network.stem.img_size),
        "gelu": "exact",
    }, ""


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(("embed_dim", "num_blocks", "mlp_ratio", "num_classes", "global_pool"))
    args.only({"act_layer": ("gelu",), "norm_layer": ("layernorm",)})
    fields |= args.given({"img_size": "image_size", "patch_size": "patch"}, facts.SIDE)


def pool(top: Facts, name: Any, class_token: bool | None, fields: dict[str, Any]) -> None:
    """Checks timm's `global_pool`: what the head reads."""
    timm_networks.check_mean(top, name, "mixer")


MODEL_TYPES: dict[str, Any] = {}
