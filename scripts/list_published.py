"""Writes what timm and torchvision document of their networks and weights, as two tables.

    python scripts/list_published.py --out=vitcnn/checkpoints

`architectures.tsv` has, for each architecture of timm whose arrays have names that vitcnn reads,
the family and the fields of our network that computes the same, or the reason why none does. Every
layer of timm's network is looked at, because many of its architectures share all names and shapes
and differ in what they compute. `published.tsv` has the preprocessing of the weights whose file
names end in a part of their SHA-256. Both need timm and torchvision: pip install "vitcnn[oracles]".
"""

import json
import pathlib
import re
import warnings

from absl import app, flags

OUT = flags.DEFINE_string("out", None, "Folder of the two tables.")

# Names of arrays that every network of a format has; see `vitcnn.checkpoints.formats`.
SIGNATURES = {
    "vit": {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"},
    "resnet": {"conv1.weight", "bn1.running_mean", "layer4.0.conv2.weight"},
    "mixer": {"stem.proj.weight", "blocks.0.mlp_channels.fc1.weight"},
    "bit": {"stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"},
}
# Classes of the layers that our networks have too.
_EVERYWHERE = {"Conv2d", "Dropout", "Identity", "Linear", "Sequential"}
_POOL = {"AdaptiveAvgPool2d", "Flatten", "MaxPool2d", "ReLU", "SelectAdaptivePool2d"}
_TOKENS = {"GELU", "GELUTanh", "LayerNorm", "Mlp", "PatchEmbed"}
LAYERS = {
    "vit": _EVERYWHERE
    | _TOKENS
    | {"Attention", "AttentionPoolLatent", "Block", "GluMlp", "LayerScale", "QuickGELU", "SiLU"}
    | {"ModuleList", "ReLU", "RelPosAttention", "RelPosBlock", "RelPosMlp"}
    | {"ResPostBlock", "ResPostRelPosBlock"}
    | {"Bottleneck", "ClassifierHead", "DownsampleConv", "GroupNormAct", "HybridEmbed"}
    | {"MaxPool2dSame", "ResNetStage", "ResNetV2", "SelectAdaptivePool2d", "StdConv2dSame"}
    | {"VisionTransformer", "VisionTransformerDistilled", "VisionTransformerRelPos"},
    "mixer": _EVERYWHERE | _TOKENS | {"MixerBlock", "MlpMixer"},
    "resnet": _EVERYWHERE | _POOL | {"BasicBlock", "BatchNorm2d", "Bottleneck", "ResNet"},
    "bit": _EVERYWHERE
    | _POOL
    | {"ClassifierHead", "ConstantPad2d", "DownsampleConv", "GroupNormAct", "PreActBottleneck"}
    | {"ResNetStage", "ResNetV2", "StdConv2d"},
}
# Whether a ViT has a class token, and timm's global_pool -> our pool.
_POOLS = {
    (True, "token"): "token",
    (False, "avg"): "gap",
    (True, "avg"): "clsgap",
    (False, "map"): "map",
}
# Modules of timm, apart from those that share no name of an array with ours.
MODULES = {"deit", "eva", "mlp_mixer", "resnet", "resnetv2", "vision_transformer"} | {
    "cait",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
}


def main(_):
    out = pathlib.Path(OUT.value)
    (out / "architectures.tsv").write_text("\n".join(architectures()) + "\n")
    (out / "published.tsv").write_text("\n".join(published()) + "\n")


def architectures() -> list[str]:
    """Returns the lines of `architectures.tsv`: name, family, and fields as JSON or a reason."""
    import timm
    from timm.models import _registry

    lines = ["architecture\tfamily\tfields, or why vitcnn has no such network"]
    families = {}
    for name in sorted(timm.list_models()):
        if timm.models.model_entrypoint(name).__module__.rpartition(".")[2] in MODULES:
            network = empty(name)
            if (family := family_of(network)) is not None:
                fields, reason = describe(network, family)
                families[name] = family
                lines.append(f"{name}\t{family}\t{reason or json.dumps(fields)}")
    for old, new in sorted(_registry._deprecated_models.items()):
        name = str(new).partition(".")[0]
        if name in families:
            lines.append(f"{old}\t{families[name]}\tsame as {name}")
    return lines


def empty(name: str):
    """Returns a network of timm without memory for its arrays."""
    import timm
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return timm.create_model(name)
        except (NotImplementedError, RuntimeError):  # some compute constants from their arrays
            return timm.create_model(name, device="meta")


def family_of(network) -> str | None:
    """Returns the family whose format reads the names of the arrays of a network of timm."""
    keys = network.state_dict().keys()
    return next((f for f, signature in SIGNATURES.items() if keys >= signature), None)


def describe(network, family: str) -> tuple[dict, str]:
    """Returns the fields of our network that computes the same, or else why there is none."""
    strange = {type(layer).__name__ for layer in network.modules()} - LAYERS[family]
    if strange:
        return {}, f"its layers {', '.join(sorted(strange))}"
    return {"vit": _vit, "mixer": _mixer, "resnet": _resnet, "bit": _bit}[family](network)


def _vit(network) -> tuple[dict, str]:
    block = network.blocks[0]
    has_class_token = network.cls_token is not None
    if {type(n).__name__ for n in (block.attn.q_norm, block.attn.k_norm)} != {"Identity"}:
        return {}, "norms of queries and keys"
    inner = [type(getattr(part, "norm", None)).__name__ for part in (block.attn, block.mlp)]
    has_inner = [name not in ("Identity", "NoneType") for name in inner]
    if len(set(has_inner)) > 1:
        return {}, "norms inside its attention or its MLPs alone"
    pool = _POOLS.get((has_class_token, network.global_pool))
    if pool is None:
        token = "a" if has_class_token else "no"
        return {}, f"{token} class token, and global_pool {network.global_pool!r}"
    if getattr(network, "pool_include_prefix", False):
        return {}, "pooling that includes its prefix tokens"
    embed = network.patch_embed
    pixels = [cells * p for cells, p in zip(embed.grid_size, _patch(embed), strict=True)]
    if pixels != list(embed.img_size):
        return {}, "patches that do not fill its images"
    gated = type(block.mlp).__name__ == "GluMlp"
    activation = type(block.mlp.act).__name__
    has = {
        name: type(getattr(network, name, None)).__name__ not in ("Identity", "NoneType")
        for name in ("norm_pre", "norm", "fc_norm")
    }
    (epsilon,) = {x.eps for x in network.modules() if type(x).__name__ == "LayerNorm"}
    relative = getattr(block.attn, "rel_pos", None) or getattr(network, "shared_rel_pos", None)
    if relative is not None and relative.mode != "cr":
        return {}, f"biases of relative positions of the kind {relative.mode!r}"
    return {
        "width": network.embed_dim,
        "depth": len(network.blocks),
        "mlp_dim": block.mlp.fc2.in_features,
        "heads": block.attn.num_heads,
        "patch": _side(_patch(network.patch_embed)),
        "image_size": _side(network.patch_embed.img_size),
        "pool": pool,
        "final_norm": has["norm"] or has["fc_norm"],
        "norm_pooled": has["fc_norm"],
        "embed_norm": has["norm_pre"],
        "distilled": type(network).__name__ == "VisionTransformerDistilled",
        "registers": getattr(network, "num_reg_tokens", 0),
        "gated": gated,
        "norm_after": type(block).__name__.startswith("ResPost"),
        "inner_norms": has_inner[0],
        "layer_scale": float(getattr(getattr(block, "ls1", None), "init_values", 0)),
        "qkv_bias": block.attn.qkv.bias is not None,
        "gelu": {"GELUTanh": "tanh", "QuickGELU": "quick"}.get(activation, "exact"),
        "epsilon": epsilon,
        **_positions(network, relative),
        **_stem(network.patch_embed),
    }, ""


def _patch(embed) -> tuple[int, int]:
    """Returns the pixels that a token covers; timm counts the positions of a map."""
    if not hasattr(embed, "backbone"):
        return embed.patch_size
    pairs = zip(embed.img_size, embed.grid_size, strict=True)
    return tuple(size // cells for size, cells in pairs)


def _stem(embed) -> dict:
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


def _positions(network, relative) -> dict:
    """Returns the fields of relative positions; {} for learned ones."""
    if relative is None:
        return {}
    shared = network.shared_rel_pos is not None
    return {
        "positions": "relative_shared" if shared else "relative",
        "relative_mlp_dim": relative.mlp.fc1.out_features,
    }


def _mixer(network) -> tuple[dict, str]:
    if "GELU" not in _layers(network):
        return {}, "activations other than GELU"
    block = network.blocks[0]
    return {
        "width": network.stem.proj.out_channels,
        "depth": len(network.blocks),
        "tokens_mlp_dim": block.mlp_tokens.fc1.out_features,
        "channels_mlp_dim": block.mlp_channels.fc1.out_features,
        "patch": _side(network.stem.patch_size),
        "image_size": _side(network.stem.img_size),
        "gelu": "exact",
    }, ""


def _resnet(network) -> tuple[dict, str]:
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    units = [unit for stage in stages for unit in stage]
    bottleneck = type(units[0]).__name__ == "Bottleneck"
    if any(unit.conv2.groups > 1 for unit in units):
        return {}, "grouped convolutions"
    if bottleneck and any(unit.conv3.out_channels != 4 * unit.conv2.out_channels for unit in units):
        return {}, "wide bottlenecks"
    return {
        "units": [len(stage) for stage in stages],
        "widths": [stage[0].conv2.out_channels for stage in stages],
        "bottleneck": bottleneck,
        "stride_conv": 2,
        "padding": "both",
        "epsilon": network.bn1.eps,
    }, ""


def _bit(network) -> tuple[dict, str]:
    return {
        "units": [len(stage.blocks) for stage in network.stages],
        "widths": [stage.blocks[0].conv2.out_channels for stage in network.stages],
    }, ""


def _layers(network) -> set[str]:
    return {type(layer).__name__ for layer in network.modules()}


def _side(size) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def published() -> list[str]:
    """Returns the lines of `published.tsv`: part of the SHA-256, library, name, preprocessing."""
    columns = "library\tname\tsize\tresize\tinterpolation\tmean\tstd"
    rows = {**_timm(), **_torchvision(), **_others()}  # torchvision knows its own files best
    return [f"sha256\t{columns}", *(f"{key}\t{row}" for key, row in sorted(rows.items()))]


def _timm() -> dict[str, str]:
    import timm
    from timm.data import resolve_data_config

    rows = {}
    for name in sorted(timm.list_models(pretrained=True)):
        config = timm.models.get_pretrained_cfg(name)
        digits = re.search(r"-([0-9a-f]{8})\.\w+$", config.url or "")
        module = timm.models.model_entrypoint(name.partition(".")[0]).__module__
        if digits is None or module.rpartition(".")[2] not in MODULES:
            continue
        if family_of(empty(name.partition(".")[0])) is None:
            continue
        data = resolve_data_config(pretrained_cfg=config.to_dict())
        size = data["input_size"][1]
        resize = int(size / data["crop_pct"]) if data["crop_mode"] == "center" else 0
        rows[digits[1]] = _row(
            "timm", name, size, resize, data["interpolation"], data["mean"], data["std"]
        )
    return rows


def _torchvision() -> dict[str, str]:
    from torchvision import models

    rows = {}
    for name in models.list_models(module=models):
        if not name.startswith(("resnet", "vit_")):
            continue
        for weights in models.get_model_weights(name):
            digits = re.search(r"-([0-9a-f]{8})\.\w+$", weights.url)[1]
            steps = weights.transforms()
            (size,), (resize,) = steps.crop_size, steps.resize_size
            rows[digits] = _row(
                "torchvision",
                f"{name}.{weights.name}",
                size,
                resize,
                steps.interpolation.value,
                steps.mean,
                steps.std,
            )
    return rows


def _others() -> dict[str, str]:
    """Returns the CIFAR-10 ResNets of He et al. as github.com/akamaster trained them."""
    names = {"12fca82f": "resnet20", "d509ac18": "resnet32", "014dd48d": "resnet44"}
    names |= {"4bfd9763": "resnet56", "1d1ed7c2": "resnet110"}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return {
        digits: _row("pytorch_resnet_cifar10", name, 32, 32, "bilinear", mean, std)
        for digits, name in names.items()
    }


def _row(library, name, size, resize, interpolation, mean, std) -> str:
    numbers = (",".join(f"{value:g}" for value in values) for values in (mean, std))
    return "\t".join([library, name, str(size), str(resize), interpolation, *numbers])


if __name__ == "__main__":
    flags.mark_flag_as_required("out")
    app.run(main)
