"""What the descriptions of timm's networks share, whatever the family."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from vitcnn import models
from vitcnn.checkpoints.sidecars import timm
from vitcnn.checkpoints.sidecars.facts import Facts

Arrays = dict[str, np.ndarray]
_INSTEAD = "export it as an archive of ours (.npz) instead"

# Classes of the layers of timm that networks of all our families have.
LAYERS = frozenset({"Conv2d", "Dropout", "Identity", "Linear", "Sequential"})
TOKEN_LAYERS = frozenset({"GELU", "GELUTanh", "LayerNorm", "Mlp", "PatchEmbed"})
MAP_LAYERS = frozenset(
    {"AdaptiveAvgPool2d", "Flatten", "MaxPool2d", "ReLU", "SelectAdaptivePool2d"}
)


# Patterns of classes of layers of timm -> the part of a network that our families lack.
_PARTS = {
    r"Rotary": "rotary positions",
    r"RmsNorm": "RMS norms",
    r"SwiGLU": "MLPs whose gate is a layer of its own",
    r"GluMlp|GatedMlp": "gated MLPs",
    r"Beit": "tables of relative positions in its blocks",
    r"EvaAttention": "keys alone without biases",
    r"NaFlexVit": "patches of images of any size",
    r"TalkingHeadAttn": "talking heads",
    r"ClassAttn": "class attention",
    r"VisionTransformerSAM": "windows of attention",
    r"ConvStem": "a stem of convolutions",
    r"FeatureListNet": "a stem with batch norms",
    r"Parallel(Scaling|Things)Block": "branches side by side",
    r"Diff(Attention|ParallelScalingBlock)": "differences of attention",
    r"EvaBlockPostNorm": "norms after its branches",
    r"Affine": "affine layers in place of norms",
    r"SpatialGatingUnit": "spatial gates",
    r"SENet": "the stem and the units of a SENet",
    r"EvoNorm": "EvoNorms",
    r"FilterResponseNorm": "filter response norms",
}


def lack(strange: Collection[str]) -> str:
    """Returns what our networks do not have, for classes of layers that none of them has."""
    parts = [part for pattern, part in _PARTS.items() if any(re.match(pattern, s) for s in strange)]
    shown = f"its layers {', '.join(sorted(strange))}"
    return f"{', '.join(parts)} ({shown})" if parts else shown


def layers(network: Any) -> set[str]:
    """Returns the names of the classes of all layers of a network of timm."""
    return {type(layer).__name__ for layer in network.modules()}


def side(size: tuple[int, int]) -> int | list[int]:
    """Returns the side of a square, or [rows, columns]."""
    return size[0] if size[0] == size[1] else list(size)


@dataclasses.dataclass(frozen=True)
class Twin:
    """The network of timm that computes what a network of ours does.

    Attributes:
      architecture: its name in timm.
      arguments: the `model_args` that differ from those of the architecture, JSON-able.
      layers: pattern of our name of a layer or an array -> timm's; see `timm_export.renamed`.
      classifier: timm's name of the head.
      weights: further keys of its `pretrained_cfg`.
      finished: what is left to do to arrays that have timm's names.
    """

    architecture: str
    arguments: Mapping[str, Any]
    layers: Mapping[str, str]
    classifier: str
    weights: Mapping[str, Any]
    finished: Callable[[Arrays], Arrays] = lambda arrays: arrays


def architecture(family: str, names: Iterable[str], fields: Mapping[str, Any]) -> str:
    """Returns the first of some architectures whose networks have these fields.

    Args:
      family: of our networks.
      names: of the architectures, the usual one first.
      fields: those that no argument of timm sets.

    Raises:
      ValueError: none has them; the message names the field.
    """
    own = {name: models.fields(family, "") | timm.architecture(name)[1] for name in names}
    unlike = {
        name: [field for field, value in fields.items() if _plain(theirs[field]) != _plain(value)]
        for name, theirs in own.items()
    }
    for name, differences in unlike.items():
        if not differences:
            return name
    usual = next(iter(unlike))
    nearest = min(unlike, key=lambda name: (len(unlike[name]), name == usual))
    others = " and ".join(f"{field} = {own[nearest][field]!r}" for field in unlike[nearest])
    shown = dict.fromkeys([*unlike[nearest], *unlike[usual]])  # in which others are like it
    raise no_network({field: fields[field] for field in shown}, others)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def no_network(fields: Mapping[str, Any], others: str) -> ValueError:
    """Returns the error about fields that no network of timm has.

    Args:
      fields: name -> value.
      others: what timm has instead.
    """
    shown = " and ".join(f"{name} = {value!r}" for name, value in fields.items())
    only = others if others.startswith("not") else f"only with {others}"
    return ValueError(f"timm has no network with {shown}, {only}: {_INSTEAD}")


def check_values(module: Any, **values: Any) -> None:
    """Raises ValueError unless the fields of a network have the values that timm's have."""
    for name, value in values.items():
        own = getattr(module, name)
        if own != value:
            raise no_network({name: own}, repr(value))


def head_as_convolution(arrays: Arrays) -> Arrays:
    """Returns arrays under timm's names with the head as a 1x1 convolution, if there is a head."""
    head = arrays.get("head.fc.weight")
    return arrays if head is None else {**arrays, "head.fc.weight": head[:, :, None, None]}


def check_mean(top: Facts, pool: Any, family: str) -> None:
    """Raises ValueError unless `global_pool` is the mean."""
    if pool != "avg":
        raise top.unsupported(f"global_pool {pool!r} (the family {family!r} pools by 'avg')")
