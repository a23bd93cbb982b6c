"""How timm and files describe a Mixer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints import timm_networks
from vitcnn.checkpoints.sidecars import facts, timm
from vitcnn.checkpoints.sidecars.facts import Facts
from vitcnn.models import mixer

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


SIGNATURES = ({"stem.proj.weight", "blocks.0.mlp_channels.fc1.weight"},)
# Arguments -> our fields that they change.
_CHANGES = {
    "embed_dim": ("width", "tokens_mlp_dim", "channels_mlp_dim"),
    "num_blocks": ("depth",),
    "mlp_ratio": ("tokens_mlp_dim", "channels_mlp_dim"),
}
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


# Our name of a layer -> timm's; see `timm_export.renamed`.
_TIMM_LAYERS = {
    r"stem": "stem.proj",
    r"MixerBlock_(\d+)/LayerNorm_0": "blocks.{0}.norm1",
    r"MixerBlock_(\d+)/LayerNorm_1": "blocks.{0}.norm2",
    r"MixerBlock_(\d+)/token_mixing/Dense_([01])": "blocks.{0}.mlp_tokens.fc{1+1}",
    r"MixerBlock_(\d+)/channel_mixing/Dense_([01])": "blocks.{0}.mlp_channels.fc{1+1}",
    r"pre_head_layer_norm": "norm",
    r"head": "head",
}


def to_timm(module: mixer.Mixer) -> timm_networks.Twin:
    """Returns the network of timm that computes what a network of ours does.

    Raises:
      ValueError: timm has no such network; the message names the field.
    """
    timm_networks.check_values(module, no_skip=(), gelu="exact")
    hidden = (module.tokens_mlp_dim, module.channels_mlp_dim)
    fields = {name: getattr(module, name) for name in ("width", "depth", "patch")}
    arguments = {
        "img_size": module.image_size,
        "mlp_ratio": [(side + 0.5) / module.width for side in hidden],  # timm rounds down
    }
    return timm_networks.Twin(
        timm_networks.architecture("mixer", timm.architectures("mixer"), fields),
        arguments,
        _TIMM_LAYERS,
        classifier="head",
        weights={"fixed_input_size": True, "first_conv": "stem.proj"},
    )


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(("num_classes", "global_pool"))
    for argument, names in _CHANGES.items():  # the arrays show what they change
        if args.get(argument) is not None:
            for name in names:
                fields.pop(name, None)
    args.only({"act_layer": ("gelu",), "norm_layer": ("layernorm",)})
    fields |= args.given({"img_size": "image_size", "patch_size": "patch"}, facts.SIDE)


def pool(top: Facts, name: Any, class_token: bool | None, fields: dict[str, Any]) -> None:
    """Checks timm's `global_pool`: what the head reads."""
    timm_networks.check_mean(top, name, "mixer")


MODEL_TYPES: dict[str, Any] = {}
