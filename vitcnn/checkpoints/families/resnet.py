"""How timm, torchvision, transformers and files describe a ResNet."""

from __future__ import annotations

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
    reshapes = any(name.endswith("/conv_proj/kernel") for name in shapes)
    return {
        "units": tuple(len(units[stage]) for stage in stages),
        "widths": tuple(shapes[f"{first.format(s)}/conv1/kernel"][-1] for s in stages),
        "bottleneck": f"{last}/conv3/kernel" in shapes,
        "norm": "group" if f"{last}/gn1/scale" in shapes else "batch",
        "stem_kernel": shapes["params/conv_root/kernel"][0],
        "shortcut": "project" if reshapes else "pad",
        "conv_bias": "params/conv_root/bias" in shapes,
        "num_classes": shapes.get("params/head/bias", (0,))[0],
    }


SIGNATURE = {"conv1.weight", "bn1.running_mean", "layer4.0.conv2.weight"}
LAYERS = (
    timm_networks.LAYERS
    | timm_networks.MAP_LAYERS
    | {"BasicBlock", "BatchNorm2d", "Bottleneck", "ResNet"}
)
# Arguments that our networks have in one form only, and no array shows.
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
        "norm": "batch",
        "stem_kernel": 7,
        "stem_stride": 2,
        "stem_pool": True,
        "shortcut": "project",
        "conv_bias": False,
        "stride_conv": 2,
        "padding": "both",
        "epsilon": network.bn1.eps,
    }, ""


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
    timm_networks.check_values(module, stem_kernel=7, stem_stride=2, stem_pool=True)
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
        fields.pop("widths", None)


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
