"""How timm, transformers and files describe a BiT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints import timm_networks
from vitcnn.checkpoints.sidecars import facts, timm
from vitcnn.checkpoints.sidecars.facts import Facts
from vitcnn.models import bit

NAMES = {"bit": ""}
UNSEEN = ()
OTHER_NAMES: dict[str, str] = {}


def from_arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields that the shapes of the arrays show."""
    units: dict[int, set[str]] = {}
    for name in shapes:
        if part := re.match(r"params/resnet/block(\d+)/unit(\d+)/", name):
            units.setdefault(int(part[1]), set()).add(part[2])
    conv = "params/resnet/block{}/unit01/a/standardized_conv2d/kernel"
    return {
        "units": tuple(len(units[stage]) for stage in sorted(units)),
        "widths": tuple(shapes[conv.format(stage)][-1] for stage in sorted(units)),
        "num_classes": shapes.get("params/head/bias", (0,))[0],
    }


SIGNATURES = ({"stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"},)
LAYERS = (
    timm_networks.LAYERS
    | timm_networks.MAP_LAYERS
    | {"ClassifierHead", "ConstantPad2d", "DownsampleConv", "GroupNormAct", "PreActBottleneck"}
    | {"ResNetStage", "ResNetV2", "StdConv2d"}
)


def describe(network: Any) -> tuple[dict[str, Any], str]:
    """Returns the fields of a network of timm, or why our BiT is no such network."""
    return {
        "units": [len(stage.blocks) for stage in network.stages],
        "widths": [stage.blocks[0].conv2.out_channels for stage in network.stages],
    }, ""


# Our name of a layer -> timm's; see `timm_export.renamed`.
_UNIT = r"resnet/block(\d+)/unit(\d+)"
_TIMM_LAYERS = {
    r"resnet/root_block/standardized_conv2d": "stem.conv",
    **{
        rf"{_UNIT}/{ours}/{kind}": f"stages.{{0-1}}.blocks.{{1-1}}.{theirs}"
        for letter, number in (("a", 1), ("b", 2), ("c", 3))
        for ours, kind, theirs in (
            (letter, "group_norm", f"norm{number}"),
            (letter, "standardized_conv2d", f"conv{number}"),
        )
    },
    rf"{_UNIT}/a/proj/standardized_conv2d": "stages.{0-1}.blocks.{1-1}.downsample.conv",
    r"resnet/group_norm": "norm",
    r"head": "head.fc",
}


def to_timm(module: bit.BiT) -> timm_networks.Twin:
    """Returns the network of timm that computes what a network of ours does.

    Raises:
      ValueError: timm has no such network; the message names the field.
    """
    timm_networks.check_values(module, no_skip=())
    fields = {"units": module.units, "widths": module.widths}  # which no argument sets
    return timm_networks.Twin(
        timm_networks.architecture("bit", timm.architectures("bit"), fields),
        {},
        _TIMM_LAYERS,
        classifier="head.fc",
        weights={"first_conv": "stem.conv"},
        finished=timm_networks.head_as_convolution,
    )


def arguments(args: Facts, fields: dict[str, Any]) -> None:
    """Changes the fields of an architecture by timm's `model_args`."""
    args.ignore(("num_classes", "global_pool", "img_size", "patch_size"))
    args.only({"output_stride": (32,), "stem_type": ("fixed",)})
    for argument, names in {
        "layers": ("units",),
        "channels": ("widths",),
        "width_factor": ("widths",),
    }.items():  # the arrays show them
        if args.get(argument) is not None:
            for name in names:
                fields.pop(name, None)


def pool(top: Facts, name: Any, class_token: bool | None, fields: dict[str, Any]) -> None:
    """Checks timm's `global_pool`: what the head reads."""
    timm_networks.check_mean(top, name, "bit")


def _transformers(config: Facts) -> dict[str, Any]:
    config.ignore(("embedding_size", "hidden_sizes", "width_factor"))
    ours = {
        "layer_type": ("preactivation",),
        "global_padding": (),
        "num_groups": (32,),
        "hidden_act": ("relu",),
        "embedding_dynamic_padding": (False,),
        "output_stride": (32,),
    }
    config.only(ours)
    return config.given({"depths": "units"}, facts.COUNTS)


MODEL_TYPES = {"bit": _transformers}
