"""How timm, torchvision, transformers and files describe a ResNet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints import timm_networks
from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.models import resnet

NAMES = {"resnet": ""}
UNSEEN = ("epsilon", "stride_conv", "padding", "stem_stride", "stem_pool")
OTHER_NAMES: dict[str, str] = {}  # torchvision's are timm's


def from_arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields that the shapes of the arrays show."""
    units: dict[int, set[str]] = {}
    for name in shapes:
        if part := re.match(r"params/block(\d+)/unit(\d+)/", name):
            units.setdefault(int(part[1]), set()).add(part[2])
    stages = sorted(units)
    first = "params/block{}/unit1"
    last = first.format(stages[-1])
    bottleneck = f"{last}/conv3/kernel" in shapes
    conv = f"{last}/conv2/kernel"
    widths = tuple(shapes[f"{first.format(s)}/conv1/kernel"][-1] for s in stages)
    norms = {"bn": "batch", "gn": "group", "norm": "plain_group"}
    (norm,) = (name for prefix, name in norms.items() if f"{last}/{prefix}1/scale" in shapes)
    reshapes = any(name.endswith("/conv_proj/kernel") for name in shapes)
    stem = sorted(name for name in shapes if re.fullmatch(r"params/conv_root\d/kernel", name))
    stem.append("params/conv_root/kernel")  # the last convolution of the stem has no number
    stem_widths = tuple(shapes[name][-1] for name in stem)
    se = f"{last}/se/reduce/kernel"
    fields = {
        "units": tuple(len(units[stage]) for stage in stages),
        "widths": widths,
        "bottleneck": bottleneck,
        "groups": shapes[conv][-1] // shapes[conv][-2] if bottleneck else 1,
        "preactivation": any(name.endswith("_final/scale") for name in shapes),
        "norm": norm,
        "attention": "se" if se in shapes else "none",
        "stem_widths": () if stem_widths == widths[:1] else stem_widths,
        "stem_kernel": shapes[stem[-1]][0],
        "stem_pool_conv": "params/conv_pool/kernel" in shapes,
        "shortcut": "project" if reshapes else "pad",
        "conv_bias": "params/conv_root/bias" in shapes,
        "num_classes": shapes.get("params/head/bias", (0,))[0],
    }
    if bottleneck:
        fields["expansion"] = shapes[f"{last}/conv3/kernel"][-1] / widths[-1]
    if se in shapes:
        channels, hidden = shapes[se]
        fields["se_ratio"] = hidden / channels
    elif f"{last}/eca/kernel" in shapes:
        fields["attention"] = "eca"
    return fields


_V2 = {"stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"}
SIGNATURES = (
    {"bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv2.weight"},
    _V2 | {"stages.0.blocks.0.norm1.running_mean"},
    _V2 | {"stem.conv1.weight"},
)
LAYERS = (
    timm_networks.LAYERS
    | timm_networks.MAP_LAYERS
    | {"AvgPool2d", "BasicBlock", "BatchNorm2d", "BlurPool2d", "Bottleneck", "Conv1d"}
    | {"EcaModule", "GroupNorm", "ResNet", "SEModule", "Sigmoid"}
    | {"BatchNormAct2d", "ClassifierHead", "DownsampleAvg", "DownsampleConv", "GroupNormAct"}
    | {"PreActBasic", "PreActBottleneck", "ResNetStage", "ResNetV2"}
)
# Arguments that no field follows, since an architecture of timm says by its name what it has. Where
# it has another value than these, its arrays differ, which is an error.
_ONLY = {
    "act_layer": ("relu",),
    "norm_layer": ("batchnorm2d", "batchnorm"),
    "output_stride": (32,),
    "cardinality": (1,),
    "base_width": (64,),
    "stem_width": (64,),
    "stem_type": ("",),
    "replace_stem_pool": (False,),
    "block_reduce_first": (1,),
    "down_kernel_size": (1,),
    "avg_down": (False,),
}


def describe(network: Any) -> tuple[dict[str, Any], str]:
    """Returns the fields of a network of timm, or why our ResNet is no such network."""
    if type(network).__name__ == "ResNetV2":
        return _version_2(network)
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


def _version_2(network: Any) -> tuple[dict[str, Any], str]:
    stages = [stage.blocks for stage in network.stages]
    names = dict(network.stem.named_children())
    stem = [names[name] for name in ("conv", "conv1", "conv2", "conv3") if name in names]
    if "pad" in names:
        return {}, "zeros around its stem"
    shortcuts = [stage[0].downsample for stage in stages]
    fields, reason = _branches(network.norm, stages, stem)
    if reason:
        return {}, reason
    return {
        **fields,
        "attention": "none",
        "preactivation": True,
        "downsample": "stride",
        "stem_pool_conv": False,
        "shortcut_pool": any(type(shortcut).__name__ == "DownsampleAvg" for shortcut in shortcuts),
    }, ""


def _branches(norm: Any, stages: list[Any], stem: list[Any]) -> tuple[dict[str, Any], str]:
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


def _gates(modules: list[Any], widths: list[int]) -> dict[str, Any] | None:
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


def _kernels(module: Any) -> list[int]:
    """Returns the sides of the kernels of the convolutions in a module."""
    return [m.kernel_size[0] for m in module.modules() if type(m).__name__ == "Conv2d"]


# Our name of a layer -> timm's; see `timm_export.renamed`.
TIMM_LAYERS = {
    r"conv_root": "conv1",
    r"bn_root": "bn1",
    r"block(\d+)/unit(\d+)/((?:conv|bn)\d)": "layer{0}.{1-1}.{2}",
    r"block(\d+)/unit(\d+)/conv_proj": "layer{0}.{1-1}.downsample.0",
    r"block(\d+)/unit(\d+)/bn_proj": "layer{0}.{1-1}.downsample.1",
    r"head": "fc",
}
TIMM_CFG = {"first_conv": "conv1", "classifier": "fc"}


def to_timm(module: resnet.ResNet) -> tuple[str, dict[str, Any]]:
    """Returns the architecture of timm and the arguments that make a network the same.

    Raises:
      ValueError: timm has no such network; the message names the field.
    """
    timm_networks.check_values(module, no_skip=(), norm="batch", epsilon=1e-5, padding="both")
    timm_networks.check_values(module, stride_conv=2, shortcut="project", conv_bias=False)
    timm_networks.check_values(module, stem_stride=2, stem_pool=True)
    timm_networks.check_written(module, preactivation=False, attention="none", downsample="stride")
    timm_networks.check_written(module, stem_kernel=7, stem_pool_conv=False, shortcut_pool=False)
    timm_networks.check_written(module, groups=1, **({"expansion": 4} if module.bottleneck else {}))
    timm_networks.check_written(module, stem_widths=())
    if len(module.units) != 4 or module.widths[0] != 64:
        raise ValueError(
            "timm's ResNets have four stages and a first convolution of 64 channels, and this one "
            f"has units = {module.units}, widths = {module.widths}"
        )
    arguments = {"layers": list(module.units), "channels": list(module.widths)}
    return "resnet50" if module.bottleneck else "resnet18", arguments


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(("layers", "channels", "num_classes", "global_pool", "img_size", "patch_size"))
    args.only(_ONLY)
    if args.get("layers") is not None:
        fields.pop("units", None)  # the arrays show them
    if args.get("channels") is not None:
        for name in ("widths", "stem_widths", "expansion"):
            fields.pop(name, None)


def pool(top: Facts, name: Any, class_token: bool | None, fields: dict[str, Any]) -> None:
    """Checks timm's `global_pool`: what the head reads."""
    timm_networks.check_mean(top, name, "resnet")


def _transformers(config: Facts) -> dict[str, Any]:
    config.ignore(("embedding_size", "hidden_sizes", "layer_type"))  # the arrays show them
    config.only({"hidden_act": ("relu",), "downsample_in_first_stage": (False,)})
    first = Rule(lambda v: isinstance(v, bool), "true or false", False)
    fields = {"stride_conv": 1 if config.take("downsample_in_bottleneck", first) else 2}
    fields |= {"stem_stride": 2, "stem_pool": True}
    return fields | config.given({"depths": "units"}, facts.COUNTS)


MODEL_TYPES = {"resnet": _transformers}
