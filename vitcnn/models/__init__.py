"""Networks: one family a file, each with `VARIANTS` by their usual names and a Flax `Module`."""

from __future__ import annotations

import dataclasses
import sys
from types import ModuleType
from typing import Any

import flax.linen as nn

from vitcnn import lookup


def network(family: str) -> type[nn.Module]:
    """Returns the class of the networks of a family; a ValueError gives the nearest families."""
    return _file(family).Module


def variant(family: str, name: str) -> dict[str, Any]:
    """Returns the fields that make a variant; a ValueError gives the nearest variants."""
    variants = _file(family).VARIANTS
    lookup.check_name(f"variant of {family}", name, variants)
    return dict(variants[name])


def _file(family: str) -> ModuleType:
    return lookup.find("model family", sys.modules[__name__], family)


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
    file = _file(family)
    lookup.check_name(f"variant of {family}", variant, file.VARIANTS)
    fields = [f.name for f in dataclasses.fields(file.Module) if f.name not in ("parent", "name")]
    for name in overrides:
        lookup.check_name(f"field of {family}", name, fields)
    # A module must be hashable, and configs give lists where the fields are tuples.
    overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    return file.Module(**{**file.VARIANTS[variant], **overrides})
