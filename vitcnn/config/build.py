"""Build: the functions that config files call. Each returns every field, most of them unset."""

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
from vitcnn.convert import converted
from vitcnn.data import sources
from vitcnn.lookup import Field, check_name, fields_of


def measurement() -> ConfigDict:
    """Returns the config of a measurement for a config file to fill in; see `Measurement`."""
    return _with_defaults(fields_of(Measurement), {})


def training(optimizer: str = "adamw", **fields: Any) -> ConfigDict:
    """Returns the config of a training run for a config file to fill in; see `Training`.

    Args:
      optimizer: name of a function of optax.
      **fields: arguments of the optimizer that differ from its defaults; the learning rate is a
        field of the config itself.
    """
    config = _with_defaults(fields_of(Training), {"optimizer": optimizer})
    owner = f"optimizer {optimizer}"
    config.optimizer_fields = _with_placeholders(optimizer_fields(optimizer), fields, owner)
    return config


def model(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a model to measure.

    Args:
      family, variant: see `vitcnn.load`.
      **fields: arguments of `vitcnn.load` and fields of the network that differ from their
        defaults; `weights=""` requires the user to give the weights.
    """
    return _named({"family": family, "variant": variant}, model_fields(family), fields)


def network(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a network to train: a `model` without the fields weights and seed.

    Args:
      family, variant, **fields: as for `model`.
    """
    return _named({"family": family, "variant": variant}, network_fields(family), fields)


def source(name: str, /, **fields: Any) -> ConfigDict:
    """Returns the config of images; see `vitcnn.data.sources`.

    Args:
      name: name of the source.
      **fields: fields that differ from their defaults; `path=""` requires the user to give the
        path.
    """
    return _named({"source": name}, sources.fields(name), fields)


def analysis(name: str, **fields: Any) -> ConfigDict:
    """Returns the config of an analysis; see `vitcnn.analyses`.

    Args:
      name: name of the analysis.
      **fields: settings that differ from their defaults.
    """
    return _named({"analysis": name}, analyses.fields(name), fields)


def stage(**fields: Any) -> ConfigDict:
    """Returns the config of a stage.

    Args:
      **fields: `data`, a `source(...)` (left out, the stage takes the data of the config), and
        `analyses`, name -> `analysis(...)`.
    """
    for field in fields:
        check_name("field of a stage", field, STAGE)
    return ConfigDict({**{name: ConfigDict() for name in STAGE}, **fields})


def _named(
    identity: Mapping[str, str], fields: Mapping[str, Any], values: Mapping[str, Any]
) -> ConfigDict:
    """Returns the config of a plugin: the fields that identify it, and all its own fields."""
    config = _with_placeholders(fields, values, " ".join(identity.values()))
    config.update(identity)
    return config


def _with_placeholders(
    fields: Mapping[str, Any], values: Mapping[str, Any], owner: str
) -> ConfigDict:
    """Returns every field: its value if there is one, else an unset placeholder of its type."""
    for name in values:
        check_name(f"field of {owner}:", name, fields)
    config = ConfigDict()
    for name, field in fields.items():
        value = values.get(name)
        if isinstance(field, Mapping):
            config[name] = _with_placeholders(field, value or {}, f"{owner}.{name}")
        elif field.type is dict:
            config[name] = ConfigDict(value or {})
        else:
            value = None if value is None else converted(value, field, f"{owner}.{name}")
            config[name] = FieldReference(value, field_type=field.type)
    return config


def _with_defaults(fields: Mapping[str, Field], values: Mapping[str, Any]) -> ConfigDict:
    """Returns every field: its value if there is one, else its default."""
    config = ConfigDict()
    for name, field in fields.items():
        value = values.get(name, field.default)
        config[name] = ConfigDict() if field.type is dict else FieldReference(value, field.type)
    return config
