"""What config files call: every field of a thing, unset but for those that are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from vitcnn import analyses
from vitcnn.config.schema import (
    STAGE,
    Measurement,
    Training,
    model_fields,
    network_fields,
    optimizer_fields,
)
from vitcnn.data import sources
from vitcnn.lookup import Field, check_name, fields_of


def measurement() -> ConfigDict:
    """Returns the config of a measurement for a config file to fill in; see `Measurement`."""
    return _filled(fields_of(Measurement), {})


def training(optimizer: str = "adamw", **fields: Any) -> ConfigDict:
    """Returns the config of a training run for a config file to fill in; see `Training`.

    Args:
      optimizer: a function of optax.
      **fields: its arguments beside the learning rate that are not the default.
    """
    config = _filled(fields_of(Training), {"optimizer": optimizer})
    config.optimizer_fields = _unset(optimizer_fields(optimizer), fields, f"optimizer {optimizer}")
    return config


def model(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a model to measure.

    Args:
      family, variant: see `vitcnn.load`.
      **fields: arguments of `vitcnn.load` and fields of the network that are not the default;
        `weights=""` has the user give them.
    """
    return _named({"family": family, "variant": variant}, model_fields(family), fields)


def network(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a network to train: a `model` without weights and seed of its own."""
    return _named({"family": family, "variant": variant}, network_fields(family), fields)


def source(name: str, /, **fields: Any) -> ConfigDict:
    """Returns the config of images; see `vitcnn.data.sources`.

    Args:
      name: name of the source.
      **fields: its fields that are not the default; `path=""` has the user give it.
    """
    return _named({"source": name}, sources.fields(name), fields)


def analysis(name: str, **fields: Any) -> ConfigDict:
    """Returns the config of an analysis; see `vitcnn.analyses`.

    Args:
      name: name of the analysis.
      **fields: its settings that are not the default.
    """
    return _named({"analysis": name}, analyses.fields(name), fields)


def stage(**fields: Any) -> ConfigDict:
    """Returns the config of a stage: `data` (that of the config if left out) and `analyses`."""
    for field in fields:
        check_name("field of a stage", field, STAGE)
    return ConfigDict({**{name: ConfigDict() for name in STAGE}, **fields})


def _named(
    head: Mapping[str, str], fields: Mapping[str, Any], values: Mapping[str, Any]
) -> ConfigDict:
    """Returns the config of a named thing: what names it, and all its fields."""
    config = _unset(fields, values, " ".join(head.values()))
    config.update(head)
    return config


def _unset(fields: Mapping[str, Any], values: Mapping[str, Any], what: str) -> ConfigDict:
    """Returns a placeholder for every field, with the values that are given in them."""
    for name in values:
        check_name(f"field of {what}:", name, fields)
    config = ConfigDict()
    for name, field in fields.items():
        value = values.get(name)
        if isinstance(field, Mapping):
            config[name] = _unset(field, value or {}, f"{what}.{name}")
        elif field.type is dict:
            config[name] = ConfigDict(value or {})
        else:
            config[name] = FieldReference(value, field_type=field.type)
    return config


def _filled(fields: Mapping[str, Field], values: Mapping[str, Any]) -> ConfigDict:
    """Returns every field with its value, else its default."""
    config = ConfigDict()
    for name, field in fields.items():
        value = values.get(name, field.default)
        config[name] = ConfigDict() if field.type is dict else FieldReference(value, field.type)
    return config
