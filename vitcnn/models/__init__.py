"""Networks: one family a file, each with `VARIANTS` by their usual names and a Flax `Module`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from vitcnn import lookup


def create(family: str, variant: str, **overrides: Any) -> nn.Module:
    """Makes a network of a family by the usual name of its size.

    Args:
      family: name of a file of this folder, such as "vit" or "resnet".
      variant: one of the family's `VARIANTS`, such as "B/16" or "R50x1".
      **overrides: fields of the family's `Module` that differ from the variant's, such as
        `num_classes=10` or `image_size=384`.

    Raises:
      ValueError: there is no such family, variant or field; the message gives the nearest names.
    """
    file = lookup.find("model family", sys.modules[__name__], family)
    lookup.check_name(f"variant of {family}", variant, file.VARIANTS)
    fields = [f.name for f in dataclasses.fields(file.Module) if f.name not in ("parent", "name")]
    for name in overrides:
        lookup.check_name(f"field of {family}", name, fields)
    # A module must be hashable, and configs give lists where the fields are tuples.
    overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    return file.Module(**{**file.VARIANTS[variant], **overrides})


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
    file = lookup.find("model family", sys.modules[__name__], family)
    names = (field.name for field in dataclasses.fields(Traits))
    declared = {name: getattr(file, name.upper(), None) for name in names}
    return Traits(**{name: value for name, value in declared.items() if value is not None})
