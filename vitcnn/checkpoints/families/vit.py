"""How timm, transformers and files describe a ViT."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcnn.checkpoints import timm_networks, vit_parts
from vitcnn.checkpoints.sidecars import facts, transformers
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.layers import image_sizes, positions, resnet_stem
from vitcnn.models import vit

NAMES = {
    **{"deit": "DeiT-", "deit-3": "DeiT-III-", "dinov2": "DINOv2-", "dino": "DINO-"},
    **{"clip": "CLIP-", "siglip": "SigLIP-", "beit-3": "BEiT-3-", "i-jepa": "I-JEPA-"},
    **{"radio": "RADIO-", "tips": "TIPSv2-", "sbb": "SBB-", "relpos": "relpos-", "vit": ""},
}
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

# Weights of timm that were trained with the quick GELU, under the names of networks with the exact
# one. timm computes them with either, by the name of the architecture ("clip_quickgelu").
_QUICK = frozenset(
    {
        "vit_base_patch32_clip_224.laion400m_e32",
        "vit_large_patch14_clip_224.dfn2b",
        "vit_huge_patch14_clip_224.dfn5b",
        "vit_huge_patch14_clip_378.dfn5b",
        "vit_huge_patch14_clip_224.metaclip2_worldwide",
        *(
            f"vit_{size}_clip_224.metaclip_{data}"
            for size in ("base_patch32", "base_patch16", "large_patch14")
            for data in ("400m", "2pt5b")
        ),
        "vit_huge_patch14_clip_224.metaclip_2pt5b",
        "vit_gigantic_patch14_clip_224.metaclip_2pt5b",
        "vit_base_patch32_clip_224.openai",
        "vit_base_patch16_clip_224.openai",
        "vit_large_patch14_clip_224.openai",
        "vit_large_patch14_clip_336.openai",
    }
)
TRAINED = {name: {"gelu": "quick"} for name in sorted(_QUICK)}

# Shapes.


def from_arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields that the shapes of the arrays show."""
    rows, columns, _, width = shapes["params/embedding/kernel"]
    blocks = {m[1] for name in shapes if (m := re.search(r"/encoderblock_(\d+)/", name))}
    block = "params/Transformer/encoderblock_0"
    mlp_dim = shapes[f"{block}/MlpBlock_3/Dense_1/kernel"][0]
    out = shapes[f"{block}/{ATTENTION}/out/kernel"]
    tokens = ("params/cls" in shapes) + ("params/dist" in shapes)
    parts = vit_parts.read(shapes)
    if parts["stem"] == "resnet":  # the kernel counts positions of its map
        pixels = resnet_stem.reduction(parts["stem_units"])
        rows, columns = rows * pixels, columns * pixels
    if "params/cls" in shapes and parts["norm_pooled"]:
        parts["pool"] = "clsgap"
    fields = {
        "width": width,
        "depth": len(blocks),
        "mlp_dim": mlp_dim,
        "patch": rows if rows == columns else (rows, columns),
        "distilled": "params/dist" in shapes,
        "registers": shapes.get("params/registers", (1, 0))[1],
        "layer_scale": 1e-5 if f"{block}/ls1/gamma" in shapes else 0.0,
        "gated": shapes[f"{block}/MlpBlock_3/Dense_0/kernel"][1] == 2 * mlp_dim,
        "pre_logits": shapes.get("params/pre_logits/bias", (0,))[0],
        "num_classes": shapes.get("params/head/bias", (0,))[0],
        "positions": "sincos2d",
        **parts,
    }
    if len(out) == 3:
        fields["heads"] = out[0]
    # Class tokens and registers may have positions or not; images are square unless the JSON says
    # otherwise.
    count = shapes.get(vit.POSITIONS, (1, 0, 0))[1]
    for patches in (count - tokens, count, count - tokens - fields["registers"]):
        side = math.isqrt(max(patches, 0))
        if side and side * side == patches:
            height, across = side * rows, side * columns
            fields["image_size"] = height if height == across else (height, across)
            break
    return fields


# timm.

SIGNATURES = ({"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"},)
LAYERS = (
    timm_networks.LAYERS
    | timm_networks.TOKEN_LAYERS
    | {"Attention", "AttentionPoolLatent", "Block", "GluMlp", "LayerScale", "QuickGELU", "SiLU"}
    | {"ModuleList", "ReLU", "RelPosAttention", "RelPosBlock", "RelPosMlp"}
    | {"ResPostBlock", "ResPostRelPosBlock"}
    | {"Bottleneck", "ClassifierHead", "DownsampleConv", "GroupNormAct", "HybridEmbed"}
    | {"MaxPool2dSame", "ResNetStage", "ResNetV2", "SelectAdaptivePool2d", "StdConv2dSame"}
    | {"VisionTransformer", "VisionTransformerDistilled", "VisionTransformerRelPos"}
)
# Whether a ViT has a class token, and timm's global_pool -> our pool.
_POOLS = {
    (True, "token"): "token",
    (False, "avg"): "gap",
    (True, "avg"): "clsgap",
    (False, "map"): "map",
}
_GELU = {"gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}
# Arguments that the arrays show.
_IN_ARRAYS = (
    *("embed_dim", "depth", "mlp_ratio", "qkv_bias", "proj_bias", "qk_norm", "class_token"),
    *("no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm", "distilled"),
    *("scale_attn_norm", "scale_mlp_norm", "representation_size", "num_classes", "global_pool"),
    *("rel_pos_dim", "shared_rel_pos"),
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
    "final_norm": ("final_norm", "norm_pooled"),
    "pre_norm": ("embed_norm",),
    "qkv_bias": ("qkv_bias",),
    "init_values": ("layer_scale",),
    "scale_attn_norm": ("inner_norms",),
    "rel_pos_dim": ("relative_mlp_dim",),
    "shared_rel_pos": ("positions", "relative_mlp_dim"),
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
    if {type(n).__name__ for n in (block.attn.q_norm, block.attn.k_norm)} != {"Identity"}:
        return {}, "norms of queries and keys"
    has_inner = [_has(part, "norm") for part in (block.attn, block.mlp)]
    if len(set(has_inner)) > 1:
        return {}, "norms inside its attention or its MLPs alone"
    pool = _POOLS.get((has_class_token, network.global_pool))
    if pool is None:
        token = "a" if has_class_token else "no"
        return {}, f"{token} class token, and global_pool {network.global_pool!r}"
    if getattr(network, "pool_include_prefix", False):
        return {}, "pooling that includes its prefix tokens"
    embed, patch = network.patch_embed, _patch(network.patch_embed)
    pixels = [cells * side for cells, side in zip(embed.grid_size, patch, strict=True)]
    if pixels != list(embed.img_size):
        return {}, "patches that do not fill its images"
    (epsilon,) = {x.eps for x in network.modules() if type(x).__name__ == "LayerNorm"}
    relative = getattr(block.attn, "rel_pos", None) or getattr(network, "shared_rel_pos", None)
    if relative is not None and relative.mode != "cr":
        return {}, f"biases of relative positions of the kind {relative.mode!r}"
    activation = type(block.mlp.act).__name__
    return {
        "width": network.embed_dim,
        "depth": len(network.blocks),
        "mlp_dim": block.mlp.fc2.in_features,
        "heads": block.attn.num_heads,
        "patch": timm_networks.side(patch),
        "image_size": timm_networks.side(embed.img_size),
        "pool": pool,
        "final_norm": _has(network, "norm") or _has(network, "fc_norm"),
        "norm_pooled": _has(network, "fc_norm"),
        "embed_norm": _has(network, "norm_pre"),
        "distilled": type(network).__name__ == "VisionTransformerDistilled",
        "registers": getattr(network, "num_reg_tokens", 0),
        "gated": type(block.mlp).__name__ == "GluMlp",
        "norm_after": type(block).__name__.startswith("ResPost"),
        "inner_norms": has_inner[0],
        "layer_scale": float(getattr(getattr(block, "ls1", None), "init_values", 0)),
        "qkv_bias": block.attn.qkv.bias is not None,
        "gelu": {"GELUTanh": "tanh", "QuickGELU": "quick"}.get(activation, "exact"),
        "epsilon": epsilon,
        **_positions(network, relative),
        **_stem(embed),
    }, ""


def _has(module: Any, layer: str) -> bool:
    """Whether a module of timm has a layer that does something."""
    return type(getattr(module, layer, None)).__name__ not in ("Identity", "NoneType")


def _patch(embed: Any) -> tuple[int, ...]:
    """Returns the pixels that a token covers; timm counts the positions of a map."""
    if not hasattr(embed, "backbone"):
        return embed.patch_size
    pairs = zip(embed.img_size, embed.grid_size, strict=True)
    return tuple(size // cells for size, cells in pairs)


def _stem(embed: Any) -> dict[str, Any]:
    """Returns the fields of the ResNet of a hybrid; {} if there is none."""
    backbone = getattr(embed, "backbone", None)
    if backbone is None:
        return {}
    stages = getattr(backbone, "stages", ())
    return {
        "stem": "resnet",
        "stem_units": [len(stage.blocks) for stage in stages],
        "stem_form": "timm",
    }


def _positions(network: Any, relative: Any) -> dict[str, Any]:
    """Returns the fields of relative positions; {} for learned ones."""
    if relative is None:
        return {}
    shared = network.shared_rel_pos is not None
    return {
        "positions": "relative_shared" if shared else "relative",
        "relative_mlp_dim": relative.mlp.fc1.out_features,
    }


# Our name of a layer or an array -> timm's; see `timm_export.renamed`.
_BLOCK = r"Transformer/encoderblock_(\d+)"
_UNIT, _BACKBONE = r"block(\d+)/unit(\d+)", "patch_embed.backbone"
_POOL = "MAPHead_0/MultiHeadDotProductAttention_0"
_TIMM_LAYERS = {
    r"embedding": "patch_embed.proj",
    r"conv_root": f"{_BACKBONE}.stem.conv",
    r"gn_root": f"{_BACKBONE}.stem.norm",
    rf"{_UNIT}/conv(\d)": f"{_BACKBONE}.stages.{{0-1}}.blocks.{{1-1}}.conv{{2}}",
    rf"{_UNIT}/gn(\d)": f"{_BACKBONE}.stages.{{0-1}}.blocks.{{1-1}}.norm{{2}}",
    rf"{_UNIT}/conv_proj": f"{_BACKBONE}.stages.{{0-1}}.blocks.{{1-1}}.downsample.conv",
    rf"{_UNIT}/gn_proj": f"{_BACKBONE}.stages.{{0-1}}.blocks.{{1-1}}.downsample.norm",
    r"cls": "cls_token",
    r"dist": "dist_token",
    r"registers": "reg_token",
    r"Transformer/posembed_input/pos_embedding": "pos_embed",
    r"Transformer/pre_norm": "norm_pre",
    r"Transformer/rel_pos/(fc[12])": "shared_rel_pos.mlp.{0}",
    rf"{_BLOCK}/LayerNorm_0": "blocks.{0}.norm1",
    rf"{_BLOCK}/{ATTENTION}/qkv": "blocks.{0}.attn.qkv",
    rf"{_BLOCK}/{ATTENTION}/rel_pos/(fc[12])": "blocks.{0}.attn.rel_pos.mlp.{1}",
    rf"{_BLOCK}/{ATTENTION}/inner_norm": "blocks.{0}.attn.norm",
    rf"{_BLOCK}/{ATTENTION}/out": "blocks.{0}.attn.proj",
    rf"{_BLOCK}/(ls[12])": "blocks.{0}.{1}",
    rf"{_BLOCK}/LayerNorm_2": "blocks.{0}.norm2",
    rf"{_BLOCK}/MlpBlock_3/Dense_0": "blocks.{0}.mlp.fc1",
    rf"{_BLOCK}/MlpBlock_3/inner_norm": "blocks.{0}.mlp.norm",
    rf"{_BLOCK}/MlpBlock_3/Dense_1": "blocks.{0}.mlp.fc2",
    r"Transformer/encoder_norm": "norm",
    r"MAPHead_0/probe": "attn_pool.latent",
    rf"{_POOL}/query": "attn_pool.q",
    rf"{_POOL}/kv": "attn_pool.kv",
    rf"{_POOL}/out": "attn_pool.proj",
    r"MAPHead_0/LayerNorm_0": "attn_pool.norm",
    r"MAPHead_0/MlpBlock_0/Dense_0": "attn_pool.mlp.fc1",
    r"MAPHead_0/MlpBlock_0/Dense_1": "attn_pool.mlp.fc2",
    r"(fc_norm|head|head_dist)": "{0}",
    r"projection": "head",
}

# Architectures that differ in what no argument of timm sets.
_ARCHITECTURES = (
    *("vit_base_patch16_224", "vit_giant_patch14_dinov2", "deit_base_distilled_patch16_224"),
    *("vit_base_patch16_clip_224", "vit_base_patch16_rpn_224"),
    *("vit_relpos_base_patch16_224", "vit_relpos_base_patch16_rpn_224"),
    *("vit_base_r50_s16_224", "vit_large_r50_s32_224", "vit_small_r26_s32_224"),
    "vit_tiny_r_s16_p8_224",
)


def to_timm(module: vit.ViT) -> timm_networks.Twin:
    """Returns the network of timm that computes what a network of ours does.

    Fixed positions become learned ones, and a projection becomes the head.

    Raises:
      ValueError: timm has no such network; the message names the field.
    """
    _check_timm(module)
    is_hybrid, is_relative = module.stem == "resnet", module.positions.startswith("relative")
    fixed = {
        name: getattr(module, name) for name in ("gated", "distilled", "epsilon", "norm_after")
    }
    fixed |= {"positions": "relative" if is_relative else "learned", "stem": module.stem}
    patch, first = image_sizes.pair(module.patch), "patch_embed.proj"
    if is_hybrid:
        fixed |= {"stem_form": module.stem_form, "stem_units": tuple(module.stem_units)}
        # timm counts positions of the map.
        patch = tuple(side // resnet_stem.reduction(module.stem_units) for side in patch)
        first = f"{_BACKBONE}.stem.conv" if module.stem_units else f"{_BACKBONE}.conv"
    hidden = 2 * module.mlp_dim if module.gated else module.mlp_dim
    arguments = {
        "img_size": module.image_size,
        "patch_size": timm_networks.side(patch),
        "embed_dim": module.width,
        "depth": module.depth,
        "num_heads": module.heads,
        # timm rounds the product down.
        "mlp_ratio": (hidden + 0.5) / module.width,
        "init_values": module.layer_scale or None,
        "qkv_bias": module.qkv_bias,
    }
    if module.gelu != "exact" and not module.gated:
        arguments["act_layer"] = {ours: theirs for theirs, ours in _GELU.items()}[module.gelu]
    if not module.distilled:
        class_token, pool = {ours: theirs for theirs, ours in _POOLS.items()}[module.pool]
        arguments |= {
            "class_token": class_token,
            "global_pool": pool,
            "fc_norm": module.norm_pooled,
        }
    if is_relative:
        arguments["rel_pos_dim"] = module.relative_mlp_dim
        arguments["shared_rel_pos"] = module.positions == "relative_shared"
    else:
        arguments |= {
            "final_norm": module.final_norm,
            "pre_norm": module.embed_norm,
            "scale_attn_norm": module.inner_norms,
            "scale_mlp_norm": module.inner_norms,
            "reg_tokens": module.registers,
            "no_embed_class": bool(module.registers),  # or registers would have positions
        }
    return timm_networks.Twin(
        timm_networks.architecture("vit", _ARCHITECTURES, fixed),
        arguments,
        _TIMM_LAYERS,
        classifier="head",
        weights={"fixed_input_size": True, "first_conv": first},
        finished=functools.partial(_as_timm, module),
    )


def _check_timm(module: vit.ViT) -> None:
    """Raises ValueError if some fields have values that timm's networks never have together."""
    timm_networks.check_values(module, no_skip=(), local_blocks=(), pre_logits=0)
    if module.projection:
        timm_networks.check_values(module, num_classes=0)
    if module.norm_after:
        timm_networks.check_values(module, layer_scale=0)
    if module.distilled:
        timm_networks.check_values(module, registers=0)
    is_relative = module.positions.startswith("relative")
    if is_relative:
        timm_networks.check_values(module, final_norm=True, embed_norm=False, registers=0)
        timm_networks.check_values(module, inner_norms=False, gelu="exact")
    if module.pool == "map" and (module.gated or is_relative):
        other = {"gated": True} if module.gated else {"positions": module.positions}
        raise timm_networks.no_network({"pool": "map", **other}, "not with both at once")


def _as_timm(module: vit.ViT, arrays: timm_networks.Arrays) -> timm_networks.Arrays:
    """Returns arrays under timm's names as its network wants them."""
    if module.stem == "resnet" and not module.stem_units:  # a root alone has no part "stem"
        arrays = {name.replace(".stem.", "."): value for name, value in arrays.items()}
    if module.projection:  # the heads of timm have biases
        arrays = {**arrays, "head.bias": np.zeros(module.projection, np.float32)}
    tokens = module.pool in ("token", "clsgap")
    if module.positions == "sincos2d":
        grid = image_sizes.grid(module.image_size, module.patch)
        table = np.asarray(positions.sincos2d(grid, module.width), np.float32)
        arrays = {
            **arrays,
            "pos_embed": np.pad(table, ((tokens + module.distilled, 0), (0, 0)))[None],
        }
    if not module.registers or not tokens:
        return arrays
    # With registers only patches have positions there, so the class token contains its own.
    places = arrays["pos_embed"]
    token = arrays["cls_token"] + places[:, :1]
    return {**arrays, "cls_token": token, "pos_embed": places[:, 1:]}


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(_IN_ARRAYS)
    args.only(_ONLY)
    fields |= args.given({"img_size": "image_size", "patch_size": "patch"}, facts.SIDE)
    if fields.get("stem") == "resnet":
        fields.pop("patch", None)  # timm counts positions of a map
    fields |= args.given({"num_heads": "heads"}, facts.COUNT)
    if args.get("norm_layer") is not None:
        fields["epsilon"] = 1e-6  # the layer norm that timm makes of the name, not the architecture
    if fields.get("gated"):
        args.only({"act_layer": ("silu", "swish")})
    elif args.get("act_layer") is not None:
        fields["gelu"] = _GELU[args.take("act_layer", facts.one_of(tuple(_GELU), "gelu"))]
    for argument, names in _CHANGES.items():  # the arrays show what they change
        if args.get(argument) is not None:
            for name in names:
                fields.pop(name, None)


def pool(top: Facts, name: Any, class_token: bool | None, fields: dict[str, Any]) -> None:
    """Changes the fields by timm's `global_pool`: what the head reads."""
    if name not in ("token", "avg", "map"):
        raise top.unsupported(f"global_pool {name!r} (a ViT pools by 'token', 'avg' or 'map')")
    if class_token is None:
        class_token = fields.get("pool") in ("token", "clsgap")
    if name == "map" and class_token:
        raise top.unsupported("global_pool 'map' of an architecture with a class token")
    fields["pool"] = _POOLS.get((bool(class_token), name), name)


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


# What reads texts, and how training compares them with images.
_TEXTS = (
    *("text_config", "text_config_dict", "vision_config_dict", "logit_scale_init_value"),
    *("projection_dim", "initializer_factor", "dropout", "attention_dropout", "vision_use_head"),
)


def _clip(tower: Facts, epsilon: float, activation: str) -> dict[str, Any]:
    """Returns the fields of the image tower of a CLIP or SigLIP.

    Args:
      tower: its facts.
      epsilon: of its norms, where the file does not say it.
      activation: the same.
    """
    tower.ignore(_TEXTS)
    activations = {**_ACTIVATIONS, "quick_gelu": "quick"}
    number = Rule(facts.positive, "a number above 0", epsilon)
    heads = Rule(facts.whole, "an integer above 0", 12)
    counts = {
        "hidden_size": "width",
        "num_hidden_layers": "depth",
        "intermediate_size": "mlp_dim",
    }
    sizes = {"image_size": "image_size", "patch_size": "patch"}
    activation = tower.take("hidden_act", facts.one_of(tuple(activations), activation))
    return {
        "epsilon": float(tower.take("layer_norm_eps", number)),
        "gelu": activations[activation],
        "heads": tower.take("num_attention_heads", heads),
        **tower.given(counts, facts.COUNT),
        **tower.given(sizes, facts.SIDE),
    }


def _whole_clip(config: Facts, epsilon: float, activation: str) -> dict[str, Any]:
    """Returns the same of a whole CLIP or SigLIP, whose image tower has a part of the file."""
    config.ignore(_TEXTS)
    is_object = Rule(lambda v: isinstance(v, Mapping), "an object", {})
    tower = Facts(transformers.FILE, config.take("vision_config", is_object))
    tower.ignore((*transformers.EVERY_CONFIG, "model_type"))
    tower.only({"num_channels": (3,), "pruned_heads": ({},)})
    fields = _clip(tower, epsilon, activation)
    tower.finish()
    return fields


MODEL_TYPES = {
    "vit": lambda config: _transformers(config, 1e-12),
    "deit": lambda config: _transformers(config, 1e-12),
    "vit_msn": lambda config: _transformers(config, 1e-6),
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2_with_registers,
    "clip": lambda config: _whole_clip(config, 1e-5, "quick_gelu"),
    "clip_vision_model": lambda config: _clip(config, 1e-5, "quick_gelu"),
    "siglip": lambda config: _whole_clip(config, 1e-6, "gelu_pytorch_tanh"),
    "siglip_vision_model": lambda config: _clip(config, 1e-6, "gelu_pytorch_tanh"),
}
