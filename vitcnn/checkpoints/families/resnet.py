"""How timm, torchvision, transformers and files describe a ResNet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vitcnn.checkpoints import timm_networks
from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.layers import resnet_unit
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
        fields["se_ratio"] = _ratio(v for k, v in shapes.items() if k.endswith("/se/reduce/kernel"))
    elif f"{last}/eca/kernel" in shapes:
        fields["attention"] = "eca"
    return fields


def _ratio(kernels: Iterable[tuple[int, ...]]) -> float:
    """Returns the `se_ratio` of hidden layers, from the shapes of all kernels (inputs, outputs)."""
    pairs = set(kernels)
    ratios = (1 / 16, 1 / 4, *(hidden / channels for channels, hidden in sorted(pairs)))
    fitting = (r for r in ratios if all(resnet_unit.se_width(c, r) == h for c, h in pairs))
    return next(fitting, ratios[-1])  # if none fits, the merge reports it


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
# Arguments that no field follows. Other values than these are refused.
_ONLY = {
    "act_layer": ("relu",),
    "output_stride": (32,),
    "stem_type": ("", "deep", "deep_tiered", "tiered"),
    "block_reduce_first": (1,),
    "down_kernel_size": (1,),
}
# Arguments -> our fields that they change, and that the arrays show.
_CHANGES = {
    "layers": ("units",),
    "channels": ("widths", "stem_widths", "expansion"),
    "cardinality": ("groups", "widths", "expansion"),
    "base_width": ("widths", "expansion"),
    "stem_width": ("stem_widths",),
    "stem_chs": ("stem_widths",),
    "stem_type": ("stem_widths", "stem_kernel"),
    "bottle_ratio": ("widths", "expansion"),
    "width_factor": ("widths", "stem_widths"),
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
            hidden = [resnet_unit.se_width(width, ratio) for width in widths]
            if hidden == [module.fc1.out_channels for module in modules]:
                return {"attention": "se", "se_ratio": ratio}
        return None
    return {"attention": "none"}


def _kernels(module: Any) -> list[int]:
    """Returns the sides of the kernels of the convolutions in a module."""
    return [m.kernel_size[0] for m in module.modules() if type(m).__name__ == "Conv2d"]


# Architectures that differ in what no argument of timm sets, of version 1 and of version 2.
_ARCHITECTURES = (
    *("resnet50", "resnet18", "resnetblur50", "resnetblur18", "resnetaa50", "resnetaa34d"),
    "resnetrs50",
)
_ARCHITECTURES_2 = ("resnetv2_50", "resnetv2_18")
_NORMS = {"batchnorm": "batch", "batchnorm2d": "batch", "groupnorm": "plain_group"}

# Our name of a layer -> timm's; see `timm_export.renamed`.
_UNIT = r"block(\d+)/unit(\d+)"
_LAYERS = {
    r"(?:bn|norm)_root": "bn1",
    r"conv_pool": "maxpool.0",
    r"(?:bn|norm)_pool": "maxpool.1",
    rf"{_UNIT}/conv(\d)": "layer{0}.{1-1}.conv{2}",
    rf"{_UNIT}/(?:bn|norm)(\d)": "layer{0}.{1-1}.bn{2}",
    rf"{_UNIT}/se/reduce": "layer{0}.{1-1}.se.fc1",
    rf"{_UNIT}/se/expand": "layer{0}.{1-1}.se.fc2",
    rf"{_UNIT}/eca": "layer{0}.{1-1}.se.conv",
    r"head": "fc",
}
_DEEP = {
    **{r"conv_root1": "conv1.0", r"(?:bn|norm)_root1": "conv1.1", r"conv_root2": "conv1.3"},
    **{r"(?:bn|norm)_root2": "conv1.4", r"conv_root": "conv1.6"},
}
_LAYERS_2 = {
    r"conv_root([12])": "stem.conv{0}",
    r"(?:bn|norm)_root([12])": "stem.norm{0}",
    rf"{_UNIT}/conv(\d)": "stages.{0-1}.blocks.{1-1}.conv{2}",
    rf"{_UNIT}/(?:bn|norm)(\d)": "stages.{0-1}.blocks.{1-1}.norm{2}",
    rf"{_UNIT}/conv_proj": "stages.{0-1}.blocks.{1-1}.downsample.conv",
    r"(?:bn|norm)_final": "norm",
    r"head": "head.fc",
}


def to_timm(module: resnet.ResNet) -> timm_networks.Twin:
    """Returns the network of timm that computes what a network of ours does.

    Raises:
      ValueError: timm has no such network; the message names the field.
    """
    if module.norm not in _NORMS.values():
        raise timm_networks.no_network({"norm": module.norm}, "'batch' or 'plain_group'")
    timm_networks.check_values(module, no_skip=(), epsilon=1e-5, padding="both")
    timm_networks.check_values(module, stride_conv=2, shortcut="project", conv_bias=False)
    timm_networks.check_values(module, stem_stride=2, stem_pool=True)
    return _to_version_2(module) if module.preactivation else _to_version_1(module)


def _to_version_1(module: resnet.ResNet) -> timm_networks.Twin:
    if len(module.units) != 4:
        raise timm_networks.no_network({"units": module.units}, "four stages")
    fixed = {"bottleneck": module.bottleneck, "downsample": module.downsample}
    arguments = {
        **_sizes(module),
        "stem_type": "",
        "replace_stem_pool": module.stem_pool_conv,
        "avg_down": module.shortcut_pool,
        "norm_layer": {ours: theirs for theirs, ours in _NORMS.items()}[module.norm],
    }
    stem = tuple(module.stem_widths or module.widths[:1])
    deep, half = len(stem) == 3, stem[-1] // 2
    kinds = {(half, half): "deep", (half // 4 * 3, half): "deep_tiered"}
    if deep and stem[:2] in kinds and module.stem_kernel == 3 and stem[-1] % 2 == 0:
        arguments |= {"stem_type": kinds[stem[:2]], "stem_width": half}
    elif stem != (64,) or module.stem_kernel != 7:
        raise _other_stem(module, "one of 64, or (n, n, 2 n) or (3 n / 4, n, 2 n)")
    if module.attention == "se":
        fixed["se_ratio"] = _se_ratio(module)
    if module.attention != "none" and fixed.get("se_ratio") != 1 / 4:
        arguments["block_args"] = {"attn_layer": module.attention}
    first = int(module.shortcut_pool)  # a pool comes in front of the convolution
    layers = {
        **(_DEEP if deep else {r"conv_root": "conv1"}),
        **_LAYERS,
        rf"{_UNIT}/conv_proj": f"layer{{0}}.{{1-1}}.downsample.{first}",
        rf"{_UNIT}/(?:bn|norm)_proj": f"layer{{0}}.{{1-1}}.downsample.{first + 1}",
    }
    return timm_networks.Twin(
        timm_networks.architecture("resnet", _ARCHITECTURES, fixed),
        arguments,
        layers,
        classifier="fc",
        weights={"first_conv": "conv1.0" if deep else "conv1"},
        finished=_gates_as_convolutions,
    )


def _sizes(module: resnet.ResNet) -> dict[str, Any]:
    """Returns timm's arguments for the widths of version 1.

    Its `channels` are a quarter of the output of a bottleneck, which its 3x3 convolution has too if
    `base_width` is 64.
    """
    sizes = {"layers": list(module.units), "channels": list(module.widths)}
    if not module.bottleneck:
        return sizes
    channels = [int(width * module.expansion) // 4 for width in module.widths]
    base = 256 / (module.groups * module.expansion)
    inner = [math.floor(width * (base / 64)) * module.groups for width in channels]
    outer = [int(width * module.expansion) for width in module.widths]
    if inner != list(module.widths) or outer != [4 * width for width in channels]:
        raise timm_networks.no_network(
            {"widths": module.widths, "expansion": module.expansion}, "outputs of 4 n channels"
        )
    base = int(base) if base == int(base) else base
    return {**sizes, "channels": channels, "cardinality": module.groups, "base_width": base}


def _se_ratio(module: resnet.ResNet) -> float:
    """Returns the share of timm whose hidden layers have the widths of those of a network."""
    outputs = [int(w * module.expansion) if module.bottleneck else w for w in module.widths]
    hidden = [resnet_unit.se_width(width, module.se_ratio) for width in outputs]
    for ratio in (1 / 16, 1 / 4):
        if hidden == [resnet_unit.se_width(width, ratio) for width in outputs]:
            return ratio
    return module.se_ratio


def _to_version_2(module: resnet.ResNet) -> timm_networks.Twin:
    timm_networks.check_values(module, groups=1, attention="none")
    stem = tuple(module.stem_widths or module.widths[:1])
    last = stem[-1]
    kinds = {
        (7, last): "",
        (3, last // 2, last // 2, last): "deep",
        (3, 3 * last // 8, last // 2, last): "tiered",
    }
    stem_type = kinds.get((module.stem_kernel, *stem))
    if stem_type is None:
        raise _other_stem(module, "one, or (n, n, 2 n) or (3 n / 4, n, 2 n)")
    expansion = module.expansion if module.bottleneck else 1
    outputs = [int(width * expansion) for width in module.widths]
    for name, widths in {"widths": (*module.widths, *outputs), "stem_widths": (last,)}.items():
        if any(width % 8 for width in widths):
            raise timm_networks.no_network({name: getattr(module, name)}, "multiples of 8")
    if module.bottleneck and outputs[0] == last:  # a shortcut that timm has everywhere
        raise timm_networks.no_network({"stem_widths": stem}, "not with a first unit of the same")
    arguments = {
        "layers": list(module.units),
        "channels": outputs,
        "bottle_ratio": 1 / expansion,
        "stem_chs": last,
        "stem_type": stem_type,
        "avg_down": module.shortcut_pool,
        "norm_layer": {ours: theirs for theirs, ours in _NORMS.items()}[module.norm],
    }
    first = "stem.conv3" if stem_type else "stem.conv"
    return timm_networks.Twin(
        timm_networks.architecture("resnet", _ARCHITECTURES_2, {"bottleneck": module.bottleneck}),
        arguments,
        {**_LAYERS_2, r"conv_root": first},
        classifier="head.fc",
        weights={"first_conv": "stem.conv1" if stem_type else "stem.conv"},
        finished=timm_networks.head_as_convolution,
    )


def _other_stem(module: resnet.ResNet, others: str) -> ValueError:
    fields = {name: getattr(module, name) for name in ("stem_widths", "stem_kernel", "widths")}
    return timm_networks.no_network(fields, f"stems of these widths: {others}")


def _gates_as_convolutions(arrays: timm_networks.Arrays) -> timm_networks.Arrays:
    """Returns arrays with the layers of channel attention as convolutions, as timm has them."""
    changed = dict(arrays)
    for name, value in arrays.items():
        if re.search(r"\.se\.fc\d\.weight$", name):
            changed[name] = value[:, :, None, None]
        elif name.endswith(".se.conv.weight"):
            changed[name] = value[None, None]
    return changed


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(("layers", "channels", "num_classes", "global_pool", "img_size", "patch_size"))
    args.only(_ONLY)
    for argument, names in _CHANGES.items():  # the arrays show what they change
        if args.get(argument) is not None:
            for name in names:
                fields.pop(name, None)
    fields |= args.given({"avg_down": "shortcut_pool"}, facts.FLAG)
    fields |= args.given({"replace_stem_pool": "stem_pool_conv"}, facts.FLAG)
    if args.get("norm_layer") is not None:
        fields["norm"] = _NORMS[args.take("norm_layer", facts.one_of(tuple(_NORMS), "batchnorm"))]
    if args.get("block_args") is not None:
        is_object = Rule(lambda v: isinstance(v, Mapping), "an object")
        inside = Facts(args.file, args.take("block_args", is_object))
        fields["attention"] = inside.take("attn_layer", facts.one_of(("se", "eca", "none"), "none"))
        fields["se_ratio"] = 1 / 16
        inside.finish()


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
