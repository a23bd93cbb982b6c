"""Writes what timm and torchvision document of their networks and weights, as two tables.

    python scripts/list_published.py --out=vitcnn/checkpoints

`architectures.tsv` has, for each architecture of timm whose arrays have names that vitcnn reads,
the family and the fields of our network that computes the same, or the reason why none does. Every
layer of timm's network is looked at, because many of its architectures share all names and shapes
and differ in what they compute. `published.tsv` has the preprocessing of the weights whose file
names end in a part of their SHA-256. Both need timm and torchvision: pip install "vitcnn[oracles]".
"""

import json
import math
import pathlib
import re
import warnings

from absl import app, flags

OUT = flags.DEFINE_string("out", None, "Folder of the two tables.")

_V2 = {"stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"}
# Names of arrays that every network of a format has; see `vitcnn.checkpoints.formats`. A family
# with several formats has several; the first family that fits is that of a network.
SIGNATURES = {
    "vit": [{"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}],
    "resnet": [
        {"bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv2.weight"},
        _V2 | {"stages.0.blocks.0.norm1.running_mean"},
        _V2 | {"stem.conv1.weight"},
    ],
    "mixer": [{"stem.proj.weight", "blocks.0.mlp_channels.fc1.weight"}],
    "bit": [_V2],
}
# Classes of the layers that our networks have too.
_EVERYWHERE = {"Conv2d", "Dropout", "Identity", "Linear", "Sequential"}
_POOL = {"AdaptiveAvgPool2d", "Flatten", "MaxPool2d", "ReLU", "SelectAdaptivePool2d"}
_TOKENS = {"GELU", "GELUTanh", "LayerNorm", "Mlp", "PatchEmbed"}
LAYERS = {
    "vit": _EVERYWHERE
    | _TOKENS
    | {"Attention", "Block", "GluMlp", "LayerScale", "SiLU"}
    | {"VisionTransformer", "VisionTransformerDistilled"},
    "mixer": _EVERYWHERE | _TOKENS | {"MixerBlock", "MlpMixer"},
    "resnet": _EVERYWHERE
    | _POOL
    | {"AvgPool2d", "BasicBlock", "BatchNorm2d", "BlurPool2d", "Bottleneck", "Conv1d"}
    | {"EcaModule", "GroupNorm", "ResNet", "SEModule", "Sigmoid"}
    | {"BatchNormAct2d", "ClassifierHead", "DownsampleAvg", "DownsampleConv", "GroupNormAct"}
    | {"PreActBasic", "PreActBottleneck", "ResNetStage", "ResNetV2"},
    "bit": _EVERYWHERE
    | _POOL
    | {"ClassifierHead", "ConstantPad2d", "DownsampleConv", "GroupNormAct", "PreActBottleneck"}
    | {"ResNetStage", "ResNetV2", "StdConv2d"},
}
# Modules of timm, apart from those that share no name of an array with ours.
MODULES = {"deit", "eva", "mlp_mixer", "resnet", "resnetv2", "vision_transformer"} | {
    "cait",
    "vision_transformer_hybrid",
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
    return next((f for f, options in SIGNATURES.items() if any(map(keys.__ge__, options))), None)


def describe(network, family: str) -> tuple[dict, str]:
    """Returns the fields of our network that computes the same, or else why there is none."""
    strange = {type(layer).__name__ for layer in network.modules()} - LAYERS[family]
    if strange:
        return {}, f"its layers {', '.join(sorted(strange))}"
    return {"vit": _vit, "mixer": _mixer, "resnet": _resnet, "bit": _bit}[family](network)


def _vit(network) -> tuple[dict, str]:
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
    gated = type(block.mlp).__name__ == "GluMlp"
    (epsilon,) = {layer.eps for layer in network.modules() if hasattr(layer, "eps")}
    return {
        "width": network.embed_dim,
        "depth": len(network.blocks),
        "mlp_dim": block.mlp.fc2.in_features,
        "heads": block.attn.num_heads,
        "patch": _side(network.patch_embed.patch_size),
        "image_size": _side(network.patch_embed.img_size),
        "pool": "token" if has_class_token else "gap",
        "norm_pooled": type(network.fc_norm).__name__ != "Identity",
        "distilled": type(network).__name__ == "VisionTransformerDistilled",
        "registers": getattr(network, "num_reg_tokens", 0),
        "gated": gated,
        "gelu": "tanh" if "GELUTanh" in _layers(network) else "exact",
        "epsilon": epsilon,
    }, ""


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
    if type(network).__name__ == "ResNetV2":
        return _resnetv2(network)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    units = [unit for stage in stages for unit in stage]
    shortcuts = [unit.downsample for unit in units if unit.downsample is not None]
    if len({type(unit) for unit in units}) > 1:
        return {}, "units of two kinds"
    if any(_kernels(shortcut) != [1] for shortcut in shortcuts):
        return {}, "3x3 convolutions in its shortcuts"
    deep = type(network.conv1).__name__ == "Sequential"
    stem = [network.conv1[i] for i in (0, 3, 6)] if deep else [network.conv1]
    fields, reason = _branches(network.bn1, stages, stem)
    if reason:
        return {}, reason
    outputs = [unit.conv3 if hasattr(unit, "conv3") else unit.conv2 for unit in units]
    gates = _gates([unit.se for unit in units], [conv.out_channels for conv in outputs])
    if gates is None:
        return {}, "channel attention of another width"
    pools = {type(unit.aa).__name__ for unit in units} - {"Identity"} or {"stride"}
    downsample = {"BlurPool2d": "blur", "AvgPool2d": "mean", "stride": "stride"}[pools.pop()]
    return {
        **fields,
        **gates,
        "preactivation": False,
        "downsample": downsample,
        "stem_pool_conv": bool(_kernels(network.maxpool)),
        "shortcut_pool": any(type(shortcut[0]).__name__ == "AvgPool2d" for shortcut in shortcuts),
    }, ""


def _resnetv2(network) -> tuple[dict, str]:
    stages = [stage.blocks for stage in network.stages]
    names = dict(network.stem.named_children())
    stem = [names[name] for name in ("conv", "conv1", "conv2", "conv3") if name in names]
    if "pad" in names:
        return {}, "zeros around its stem"
    shortcuts = [stage[0].downsample for stage in stages]
    fields, reason = _branches(network.norm, stages, stem)
    return {
        **fields,
        "attention": "none",
        "preactivation": True,
        "downsample": "stride",
        "stem_pool_conv": False,
        "shortcut_pool": any(type(shortcut).__name__ == "DownsampleAvg" for shortcut in shortcuts),
    }, reason


def _branches(norm, stages, stem) -> tuple[dict, str]:
    """Returns the fields that all ResNets have, or why ours has no such branches."""
    units = [unit for stage in stages for unit in stage]
    bottleneck = hasattr(units[0], "conv3")
    outputs = [(unit.conv3 if bottleneck else unit.conv2).out_channels for unit in units]
    inner = [unit.conv2.out_channels for unit in units]
    if any(len({unit.conv2.out_channels for unit in stage}) > 1 for stage in stages):
        return {}, "units of different widths in a stage"
    if any(unit.conv1.out_channels != width for unit, width in zip(units, inner, strict=True)):
        return {}, "convolutions of different widths in a unit"
    (expansion,) = {out / width for out, width in zip(outputs, inner, strict=True)}
    (groups,) = {unit.conv2.groups for unit in units}
    is_group = type(norm).__name__.startswith("GroupNorm")
    if is_group and norm.num_groups != 32:
        return {}, f"norms of {norm.num_groups} groups"
    widths = [stage[0].conv2.out_channels for stage in stages]
    stem_widths = [conv.out_channels for conv in stem]
    return {
        "units": [len(stage) for stage in stages],
        "widths": widths,
        "bottleneck": bottleneck,
        **({"expansion": expansion} if bottleneck else {}),
        "groups": groups,
        "norm": "plain_group" if is_group else "batch",
        "stem_widths": [] if stem_widths == widths[:1] else stem_widths,
        "stem_kernel": stem[0].kernel_size[0],
        "stem_stride": 2,
        "stem_pool": True,
        "shortcut": "project",
        "conv_bias": False,
        "stride_conv": 2,
        "padding": "both",
        "epsilon": norm.eps,
    }, ""


def _gates(modules, widths) -> dict | None:
    """Returns the fields of the channel attention of a ResNet, None if ours has another width."""
    (kind,) = {type(module).__name__ for module in modules}
    if kind == "EcaModule":
        expected = [(math.log2(unit_width) + 1) / 2 for unit_width in widths]
        sizes = [max(3, int(size) + 1 - int(size) % 2) for size in expected]
        fits = sizes == [module.conv.kernel_size[0] for module in modules]
        return {"attention": "eca"} if fits else None
    if kind == "SEModule":
        for ratio in (1 / 16, 1 / 4):
            hidden = [max(8, int(width * ratio + 4) // 8 * 8) for width in widths]
            if hidden == [module.fc1.out_channels for module in modules]:
                return {"attention": "se", "se_ratio": ratio}
        return None
    return {"attention": "none"}


def _kernels(module) -> list[int]:
    """Returns the sides of the kernels of the convolutions in a module."""
    return [m.kernel_size[0] for m in module.modules() if type(m).__name__ == "Conv2d"]


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
        if not name.startswith(("resnet", "resnext", "vit_", "wide_resnet")):
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
