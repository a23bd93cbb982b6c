"""How timm, transformers and files describe a ViT."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcnn.checkpoints import timm_networks
from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.models import vit

NAMES = {"deit": "DeiT-", "dinov2": "DINOv2-", "dino": "DINO-", "vit": ""}
UNSEEN = ("heads", "gelu", "epsilon")
# Names of torchvision and of torch.hub -> architecture of timm.
OTHER_NAMES = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
    "dino_vits16": "vit_small_patch16_224",
    "dino_vits8": "vit_small_patch8_224",
    "dino_vitb16": "vit_base_patch16_224",
    "dino_vitb8": "vit_base_patch8_224",
    **{
        f"dinov2_vit{size[0]}14{reg}": f"vit_{size}_patch14{reg and '_reg4'}_dinov2"
        for size in ("small", "base", "large", "giant")
        for reg in ("", "_reg")
    },
}

# Shapes.


def from_arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields that the shapes of the arrays show."""
    rows, columns, _, width = shapes["params/embedding/kernel"]
    blocks = {m[1] for name in shapes if (m := re.search(r"/encoderblock_(\d+)/", name))}
    block = "params/Transformer/encoderblock_0"
    mlp_dim = shapes[f"{block}/MlpBlock_3/Dense_1/kernel"][0]
    out = shapes[f"{block}/{ATTENTION}/out/kernel"]
    tokens = ("params/cls" in shapes) + ("params/dist" in shapes)
    fields = {
        "width": width,
        "depth": len(blocks),
        "mlp_dim": mlp_dim,
        "patch": rows if rows == columns else (rows, columns),
        "pool": "token" if "params/cls" in shapes else "gap",
        "norm_pooled": "params/Transformer/encoder_norm/scale" not in shapes,
        "distilled": "params/dist" in shapes,
        "registers": shapes.get("params/registers", (1, 0))[1],
        "layer_scale": 1e-5 if f"{block}/ls1/gamma" in shapes else 0.0,
        "gated": shapes[f"{block}/MlpBlock_3/Dense_0/kernel"][1] == 2 * mlp_dim,
        "pre_logits": shapes.get("params/pre_logits/bias", (0,))[0],
        "num_classes": shapes.get("params/head/bias", (0,))[0],
        "positions": "learned" if vit.POSITIONS in shapes else "sincos2d",
    }
    if len(out) == 3:
        fields["heads"] = out[0]
    # Not every file has positions for its class token; images are square unless the JSON says so.
    count = shapes.get(vit.POSITIONS, (1, 0, 0))[1]
    for patches in (count - tokens, count):
        side = math.isqrt(max(patches, 0))
        if side and side * side == patches:
            height, across = side * rows, side * columns
            fields["image_size"] = height if height == across else (height, across)
            break
    return fields


# timm.

SIGNATURE = {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}
LAYERS = (
    timm_networks.LAYERS
    | timm_networks.TOKEN_LAYERS
    | {"Attention", "Block", "GluMlp", "LayerScale", "SiLU"}
    | {"VisionTransformer", "VisionTransformerDistilled"}
)
_GELU = {"gelu": "exact", "gelu_tanh": "tanh"}
# Arguments that the arrays show.
_IN_ARRAYS = (
    *("embed_dim", "depth", "mlp_ratio", "qkv_bias", "proj_bias", "qk_norm", "class_token"),
    *("no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm", "distilled"),
    *("scale_attn_norm", "scale_mlp_norm", "representation_size", "num_classes", "global_pool"),
)
# Arguments -> our fields that they change.
_CHANGES = {
    "embed_dim": ("width", "mlp_dim"),
    "depth": ("depth",),
    "mlp_ratio": ("mlp_dim",),
    "reg_tokens": ("registers",),
    "fc_norm": ("norm_pooled",),
    "class_token": ("norm_pooled",),
    "global_pool": ("norm_pooled",),
    "init_values": ("layer_scale",),
}
# Arguments that our ViT has in one form only, and no array shows.
_ONLY = {
    "dynamic_img_pad": (False,),
    "pool_include_prefix": (False,),
    "pos_embed": ("learn",),
    "norm_layer": ("layernorm",),
}


def describe(network: Any) -> tuple[dict[str, Any], str]:
    """Returns the fields of a network of timm, or why our ViT is no such network."""
    block = network.blocks[0]
    has_class_token = network.cls_token is not None
    if type(network.norm_pre).__name__ != "Identity":
        return {}, "a norm before its blocks"
    if {type(n).__name__ for n in (block.attn.q_norm, block.attn.k_norm)} != {"Identity"}:
        return {}, "norms of queries and keys"
    if (network.global_pool == "token") != has_class_token or network.global_pool not in (
        "token",
        "avg",
    ):
        token = "a" if has_class_token else "no"
        return {}, f"{token} class token, and global_pool {network.global_pool!r}"
    (epsilon,) = {layer.eps for layer in network.modules() if hasattr(layer, "eps")}
    return {
        "width": network.embed_dim,
        "depth": len(network.blocks),
        "mlp_dim": block.mlp.fc2.in_features,
        "heads": block.attn.num_heads,
        "patch": timm_networks.side(network.patch_embed.patch_size),
        "image_size": timm_networks.side(network.patch_embed.img_size),
        "pool": "token" if has_class_token else "gap",
        "norm_pooled": type(network.fc_norm).__name__ != "Identity",
        "distilled": type(network).__name__ == "VisionTransformerDistilled",
        "registers": getattr(network, "num_reg_tokens", 0),
        "gated": type(block.mlp).__name__ == "GluMlp",
        "gelu": "tanh" if "GELUTanh" in timm_networks.layers(network) else "exact",
        "epsilon": epsilon,
    }, ""


# Our name of a layer or an array -> timm's; see `timm_export.renamed`.
TIMM_LAYERS = {
    r"embedding": "patch_embed.proj",
    r"cls": "cls_token",
    r"dist": "dist_token",
    r"registers": "reg_token",
    r"Transformer/posembed_input/pos_embedding": "pos_embed",
    r"Transformer/encoderblock_(\d+)/LayerNorm_0": "blocks.{0}.norm1",
    rf"Transformer/encoderblock_(\d+)/{ATTENTION}/qkv": "blocks.{0}.attn.qkv",
    rf"Transformer/encoderblock_(\d+)/{ATTENTION}/out": "blocks.{0}.attn.proj",
    r"Transformer/encoderblock_(\d+)/(ls[12])": "blocks.{0}.{1}",
    r"Transformer/encoderblock_(\d+)/LayerNorm_2": "blocks.{0}.norm2",
    r"Transformer/encoderblock_(\d+)/MlpBlock_3/Dense_0": "blocks.{0}.mlp.fc1",
    r"Transformer/encoderblock_(\d+)/MlpBlock_3/Dense_1": "blocks.{0}.mlp.fc2",
    r"Transformer/encoder_norm": "norm",
    r"(fc_norm|head|head_dist)": "{0}",
}
TIMM_CFG = {"fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head"}


def to_timm(module: vit.ViT) -> tuple[str, dict[str, Any]]:
    """Returns the architecture of timm and the arguments that make a network the same.

    Raises:
      ValueError: timm has no such network; the message names the field.
    """
    timm_networks.check_values(module, no_skip=(), local_blocks=(), pre_logits=0)
    timm_networks.check_values(module, positions="learned", epsilon=1e-6)
    if module.gated:
        architecture = "vit_giant_patch14_dinov2"
    elif module.distilled:
        architecture = "deit_base_distilled_patch16_224"
    else:
        architecture = "vit_base_patch16_224"
    hidden = 2 * module.mlp_dim if module.gated else module.mlp_dim
    arguments = {
        "img_size": module.image_size,
        "patch_size": module.patch,
        "embed_dim": module.width,
        "depth": module.depth,
        "num_heads": module.heads,
        # timm rounds the product down.
        "mlp_ratio": (hidden + 0.5) / module.width,
        "init_values": module.layer_scale or None,
    }
    if not module.distilled:
        is_gap = module.pool == "gap"
        arguments |= {
            "class_token": not is_gap,
            "global_pool": "avg" if is_gap else "token",
            "fc_norm": module.norm_pooled,
            "reg_tokens": module.registers,
            "no_embed_class": bool(module.registers),  # or registers would have positions
        }
    if module.gelu == "tanh" and not module.gated:
        arguments["act_layer"] = "gelu_tanh"
    return architecture, arguments


def timm_arrays(arrays: dict[str, np.ndarray], module: vit.ViT) -> dict[str, np.ndarray]:
    """Returns arrays under timm's names as its network wants them.

    With registers only patches have positions there, so the class token contains its own.
    """
    if not module.registers or module.pool != "token":
        return arrays
    positions = arrays["pos_embed"]
    token = arrays["cls_token"] + positions[:, :1]
    return {**arrays, "cls_token": token, "pos_embed": positions[:, 1:]}


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(_IN_ARRAYS)
    args.only(_ONLY)
    fields |= args.given({"img_size": "image_size", "patch_size": "patch"}, facts.SIDE)
    fields |= args.given({"num_heads": "heads"}, facts.COUNT)
    if args.get("act_layer") is not None:
        fields["gelu"] = _GELU[args.take("act_layer", facts.one_of(tuple(_GELU), "gelu"))]
    for argument, names in _CHANGES.items():  # the arrays show what they change
        if args.get(argument) is not None:
            for name in names:
                fields.pop(name, None)


def pool(top: Facts, name: Any, class_token: bool | None, fields: dict[str, Any]) -> None:
    """Changes the fields by timm's `global_pool`: what the head reads."""
    if name not in ("token", "avg"):
        raise top.unsupported(f"global_pool {name!r} (a ViT pools by 'token' or 'avg')")
    has_token = fields.get("pool") == "token" if class_token is None else class_token
    if has_token and name == "avg":
        raise top.unsupported("global_pool 'avg' of an architecture with a class token")
    fields["pool"] = {"token": "token", "avg": "gap"}[name]


# transformers.

_ACTIVATIONS = {
    "gelu": "exact",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
}
_ONLY_TRAINING = (
    *("encoder_stride", "use_mask_token", "layerscale_value", "reshape_hidden_states"),
    *("interpolate_antialias", "interpolate_offset", "pooler_output_size", "qkv_bias"),
    *("mlp_ratio",),  # the arrays show the last three
)


def _transformers(config: Facts, epsilon: float) -> dict[str, Any]:
    """Returns the fields that all ViTs of transformers have; `epsilon` where the file has none."""
    config.ignore(_ONLY_TRAINING)
    config.only({"pooler_act": ("tanh",)})
    number = Rule(facts.positive, "a number above 0", epsilon)
    activation = config.take("hidden_act", facts.one_of(tuple(_ACTIVATIONS), "gelu"))
    counts = {
        "hidden_size": "width",
        "num_hidden_layers": "depth",
        "num_attention_heads": "heads",
        "intermediate_size": "mlp_dim",
    }
    sizes = {"image_size": "image_size", "patch_size": "patch"}
    return {
        "epsilon": float(config.take("layer_norm_eps", number)),
        "gelu": _ACTIVATIONS[activation],
        **config.given(counts, facts.COUNT),
        **config.given(sizes, facts.SIDE),
    }


def _dinov2(config: Facts) -> dict[str, Any]:
    fields = _transformers(config, 1e-6)
    gated = Rule(lambda v: isinstance(v, bool), "true or false", False)
    fields["gated"] = config.take("use_swiglu_ffn", gated)
    fields.pop("mlp_dim", None)  # no key of this type; mlp_ratio says it
    return fields


def _dinov2_with_registers(config: Facts) -> dict[str, Any]:
    tokens = Rule(lambda v: type(v) is int and v >= 0, "an integer, at least 0")
    return _dinov2(config) | config.given({"num_register_tokens": "registers"}, tokens)


MODEL_TYPES = {
    "vit": lambda config: _transformers(config, 1e-12),
    "deit": lambda config: _transformers(config, 1e-12),
    "vit_msn": lambda config: _transformers(config, 1e-6),
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2_with_registers,
}
