"""Build: the functions that config files call. Each returns every field, most of them unset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from vitcnn.config.schema import PARTS, STAGE, Ablation, Evaluation, Measurement, Training
from vitcnn.convert import converted
from vitcnn.lookup import Field, check_name, fields_of


def measurement() -> ConfigDict:
    """Returns the config of a measurement for a config file to fill in; see `Measurement`."""
    return _with_defaults(fields_of(Measurement), {})


def training() -> ConfigDict:
    """Returns the config of a training run for a config file to fill in; see `Training`."""
    config = _with_defaults(fields_of(Training), {})
    config.optimizer, config.schedule, config.mixing = optimizer("adam"), schedule(), mixing()
    return config


def ablation(name: str) -> ConfigDict:
    """Returns the config of an ablation for a config file to fill in; see `Ablation`.

    Args:
      name: name of the ablation.
    """
    return _with_defaults(fields_of(Ablation), {"name": name})


def model(family: str = "", variant: str = "", **fields: Any) -> ConfigDict:
    """Returns the config of a model to measure.

    Args:
      family, variant: see `vitcnn.load`; without a variant the weights decide about it, and without
        a family about all fields of the network.
      **fields: arguments of `vitcnn.load` and fields of the network that differ from their
        defaults; `weights=""` requires the user to give the weights.
    """
    return _part("model", (family, variant), fields)


def network(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a network to train: a `model` without the fields weights and seed.

    Args:
      family, variant, **fields: as for `model`.
    """
    return _part("network", (family, variant), fields)


def source(name: str, /, **fields: Any) -> ConfigDict:
    """Returns the config of images; see `vitcnn.data.sources`.

    Args:
      name: name of the source.
      **fields: fields that differ from their defaults; `path=""` requires the user to give the
        path.
    """
    return _part("source", (name,), fields)


def analysis(name: str, **fields: Any) -> ConfigDict:
    """Returns the config of an analysis; see `vitcnn.analyses`.

    Args:
      name: name of the analysis.
      **fields: settings that differ from their defaults.
    """
    return _part("analysis", (name,), fields)


def optimizer(name: str, **fields: Any) -> ConfigDict:
    """Returns the config of an optimizer; see `vitcnn.recipe.optimizers`.

    Args:
      name: name of the optimizer.
      **fields: arguments that differ from their defaults; learning rate and weight decay are
        fields of the config itself.
    """
    return _part("optimizer", (name,), fields)


def schedule(name: str = "cosine", **fields: Any) -> ConfigDict:
    """Returns the config of a schedule; see `vitcnn.recipe.schedules`.

    Args:
      name: name of the schedule.
      **fields: fields that differ from their defaults, such as warmup="5%".
    """
    return _part("schedule", (name,), fields)


def mixing(**fields: Any) -> ConfigDict:
    """Returns the config of what the device does to a batch; see `vitcnn.recipe.mixing.Mixing`.

    Args:
      **fields: fields that differ from their defaults, such as mixup=0.2.
    """
    return _part("mixing", (), fields)


def evaluation(**fields: Any) -> ConfigDict:
    """Returns the config of an evaluation during training; see `Evaluation`.

    Args:
      **fields: fields that differ from their defaults; without `analyses`, the accuracy.
    """
    for field in fields:
        check_name("field of an evaluation", field, fields_of(Evaluation))
    config = _with_defaults(fields_of(Evaluation), {})
    config.update({"analyses": {"accuracy": analysis("accuracy")}} | fields)
    return config


def stage(**fields: Any) -> ConfigDict:
    """Returns the config of a stage.

    Args:
      **fields: `data`, a `source(...)` (left out, the stage takes the data of the config), and
        `analyses`, name -> `analysis(...)`.
    """
    for field in fields:
        check_name("field of a stage", field, STAGE)
    return ConfigDict({**{name: ConfigDict() for name in STAGE}, **fields})


def _part(kind: str, names: tuple[str, ...], values: Mapping[str, Any]) -> ConfigDict:
    """Returns a part of a config: the fields that name the plugin, and all its own fields."""
    part = PARTS[kind]
    config = _with_placeholders(part.fields(*names), values, " ".join(names) or kind)
    config.update(dict(zip(part.identity, names, strict=True)))
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
