"""Networks: one family a file.

A family file holds
  NETWORK: a Flax linen module whose fields describe the network, `num_classes`, `image_size` and
    `dtype` among them; called with normalised images [batch, height, width, 3] it returns logits.
  VARIANTS: the usual names of its sizes, each with the fields that differ from the defaults.
A file may also hold
  ARCHITECTURES: names of timm's networks -> the variants that compute the same.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn import lookup

# What other libraries call the fields of a network -> our name.
_WORDS = {
    **{"pretrained": "weights", "imgsize": "image_size", "inputsize": "image_size"},
    **{"classes": "num_classes", "numlabels": "num_classes", "patchsize": "patch"},
    **{"embeddim": "width", "hiddensize": "width", "dim": "width", "numlayers": "depth"},
    **{"numheads": "heads", "mlpratio": "mlp_dim", "regtokens": "registers", "actlayer": "gelu"},
    **{"globalpool": "pool", "initvalues": "layer_scale", "layers": "units", "channels": "widths"},
}


def network(family: str) -> type[nn.Module]:
    """Returns the class of the networks of a family; a ValueError gives the nearest families."""
    return _file(family).NETWORK


def variants(family: str) -> list[str]:
    """Returns the names of the variants of a family."""
    return list(_file(family).VARIANTS)


def variant(family: str, name: str) -> dict[str, Any]:
    """Returns the fields that make a variant ({} for ""); a ValueError gives the nearest ones."""
    return _variant(family, name)


def fields(family: str, variant: str) -> dict[str, Any]:
    """Returns every field of a variant, those with the default of the family too."""
    return {**_defaults(network(family)), **_variant(family, variant)}


def _defaults(network_class: type[nn.Module]) -> dict[str, Any]:
    return {
        field.name: field.default
        for field in dataclasses.fields(network_class)
        if field.name not in ("parent", "name")
    }


def _file(family: str) -> ModuleType:
    return lookup.find("model family", sys.modules[__name__], family)


def _variant(family: str, name: str) -> dict[str, Any]:  # `create` has an argument `variant`
    if not name:
        return {}
    variants = _file(family).VARIANTS
    lookup.check_name(f"variant of {family}", name, variants)
    return dict(variants[name])


def create(family: str, variant: str, **overrides: Any) -> nn.Module:
    """Makes a network of a family by the usual name of its size.

    Args:
      family: name of a file of this folder, such as "vit" or "resnet".
      variant: one of the family's `VARIANTS`, such as "B/16" or "R50x1"; "" for the defaults of
        `NETWORK`.
      **overrides: fields of the family's `NETWORK` that differ from the variant's, such as
        `num_classes=10` or `image_size=384`.

    Raises:
      ValueError: there is no such family, variant or field (the message lists the nearest names);
        a field is None, which is never a value; or num_classes or image_size is no such number.
    """
    network_class = network(family)
    variant_fields = _variant(family, variant)
    defaults = _defaults(network_class)
    for name, value in overrides.items():
        words = {w: meant for w, meant in _WORDS.items() if meant in (*defaults, "weights")}
        lookup.check_name(f"field of {family}", name, defaults, words)
        if value is None:
            default = variant_fields.get(name, defaults[name])
            raise ValueError(
                f"{name}=None: None is not a value of a field; leave {name} out, or write "
                f"{name}={default!r}, which is the default of {family} {variant}"
            )
    # A module must be hashable, and configs give lists where the fields are tuples.
    overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    _check_numbers(overrides)
    return network_class(**{**variant_fields, **overrides})


def _check_numbers(fields: Mapping[str, Any]) -> None:
    """Raises ValueError if the fields of every network are no numbers of pixels or classes."""
    classes, size = fields.get("num_classes", 0), fields.get("image_size", 1)
    if not _is_count(classes, 0):
        raise ValueError(f"num_classes is {classes!r}: expected an integer, 0 for no head")
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(_is_count(side, 1) for side in sides):
        raise ValueError(
            f"image_size is {size!r}: expected pixels, an integer above 0 or (rows, columns)"
        )


def _is_count(value: Any, least: int) -> bool:
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return integer and value >= least


@dataclasses.dataclass(frozen=True)
class Traits:
    """What loading weights has to know of a family.

    The file of a family declares what differs from these defaults, in constants of the same names
    in capitals, such as `KIND = "vit"`.

    Attributes:
      kind: what the networks are: "vit", "cnn", "mixer", or another word; "" if it is not said.
      heads: names of the layers that make logits; a new head replaces them.
      positions: full name of the position embedding, [1, prefix tokens + patches, width], which is
        resized to the grid of the network; None if there is none. Networks that have one also have
        the fields `image_size` and `patch`.
      widths: fields of the network -> full name of an array whose last axis they set, and which is
        absent if the field is 0; an error about weights that do not fit says how to set them.
    """

    kind: str = ""
    heads: tuple[str, ...] = ("head",)
    positions: str | None = None
    widths: Mapping[str, str] = dataclasses.field(default_factory=dict)


def traits(family: str) -> Traits:
    """Returns what the file of a family declares; a ValueError gives the nearest families."""
    file = _file(family)
    names = (field.name for field in dataclasses.fields(Traits))
    declared = {name: getattr(file, name.upper(), None) for name in names}
    return Traits(**{name: value for name, value in declared.items() if value is not None})
