"""Check: names, types and required fields of a config, before any long work starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import analyses, models
from vitcnn.config.schema import (
    PRECISIONS,
    STAGE,
    Fields,
    Measurement,
    Training,
    model_fields,
    network_fields,
    optimizer_fields,
)
from vitcnn.convert import converted
from vitcnn.data import sources
from vitcnn.lookup import REQUIRED, check_name, fields_of


def check_measurement(config: Fields, images: Any = None) -> ConfigDict:
    """Returns a checked measurement: defaults filled in, unset fields removed.

    Args:
      config: fields of `Measurement`, from `measurement()` or any mapping with some of them.
      images: a source in memory that replaces `config.data`; None uses `config.data`.

    Raises:
      ValueError: a field that is unknown (with the nearest right one), ill-typed or missing.
    """
    full = _check_schema(config, Measurement)
    check_name("precision", full["precision"], PRECISIONS)
    if images is None:
        full["data"] = _check_source(full["data"], "config.data")
    for name, fields in full["models"].items():
        full["models"][name] = _check_model(fields, f"config.models.{name}", model_fields)
    full["analyses"] = _check_analyses(full["analyses"], "config.analyses")
    for name, fields in full["stages"].items():
        check_file_name(name)
        where = f"config.stages.{name}"
        for field in fields:
            check_name(f"field of {where}", field, STAGE)
        data = fields.get("data") or {}
        full["stages"][name] = {
            "data": _check_source(data, f"{where}.data") if data else {},
            "analyses": _check_analyses(fields.get("analyses") or {}, f"{where}.analyses"),
        }
    return ConfigDict(full)


def check_training(config: Fields) -> ConfigDict:
    """Returns a checked training config: defaults filled in, unset fields removed.

    Args:
      config: fields of `Training`, from `training()` or any mapping with some of them.

    Raises:
      ValueError: a field that is unknown (with the nearest right one), ill-typed or missing.
    """
    full = _check_schema(config, Training)
    check_name("precision", full["precision"], PRECISIONS)
    full["model"] = _check_model(full["model"], "config.model", network_fields)
    full["data"] = _check_source(full["data"], "config.data")
    if full["eval_data"]:
        full["eval_data"] = _check_source(full["eval_data"], "config.eval_data")
    full["optimizer_fields"] = _check_fields(
        full["optimizer_fields"], optimizer_fields(full["optimizer"]), "config.optimizer_fields"
    )
    if full["steps"] < 1 or full["batch"] < 1:
        raise ValueError(
            f"config.steps = {full['steps']} and config.batch = {full['batch']} must be at least 1"
        )
    if not 0 <= full["warmup"] < full["steps"]:
        raise ValueError(
            f"config.warmup = {full['warmup']} must be at least 0 and below config.steps = "
            f"{full['steps']}"
        )
    return ConfigDict(full)


def check_file_name(name: str) -> None:
    """Raises ValueError unless a model, an analysis or a stage may have this name.

    The names become parts of file names.
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(
            f"{name!r} cannot name a model, an analysis or a stage: use only letters, digits and "
            "the characters _ . + -"
        )


def _check_schema(config: Fields, schema: type) -> dict[str, Any]:
    """Returns the top level of a config, with defaults and converted values."""
    fields = fields_of(schema)
    values = {name: field.default for name, field in fields.items()}
    for name, value in _without_unset(config).items():
        check_name("field of the config", name, fields)
        values[name] = converted(value, fields[name], f"config.{name}")
    return values


def _check_model(fields: Fields, where: str, fields_of_family: Any) -> dict[str, Any]:
    for required in ("family", "variant"):
        if not fields.get(required):
            raise ValueError(f"{where}.{required} is not set")
    if fields.get("weights") == "":
        raise ValueError(f'{where}.weights is empty; give a path, or "random" for random weights')
    models.variant(fields["family"], fields["variant"])
    identity = {name: fields[name] for name in ("family", "variant")}
    rest = {name: value for name, value in fields.items() if name not in identity}
    return {**identity, **_check_fields(rest, fields_of_family(identity["family"]), where)}


def _check_source(fields: Fields, where: str) -> dict[str, Any]:
    if not fields.get("source"):
        raise ValueError(f"{where}.source is not set: name one of {sources.names()}")
    source_fields = sources.fields(fields["source"])
    rest = {name: value for name, value in fields.items() if name != "source"}
    for name, field in source_fields.items():
        if field.default is REQUIRED and rest.get(name) in (None, ""):
            raise ValueError(f"{where}.{name} is not set; give it with --{where}.{name}=...")
    return {"source": fields["source"], **_check_fields(rest, source_fields, where)}


def _check_analyses(configs: Fields, where: str) -> dict[str, Any]:
    checked = {}
    for name, fields in configs.items():
        check_file_name(name)
        analysis = fields.get("analysis") or name
        rest = {k: v for k, v in fields.items() if k != "analysis"}
        rest = _check_fields(rest, analyses.fields(analysis), f"{where}.{name}")
        checked[name] = {"analysis": analysis, **rest}
    return checked


def _check_fields(values: Fields, fields: Fields, where: str) -> dict[str, Any]:
    """Returns values converted to the types of their fields; a field may be a mapping of fields."""
    checked = {}
    for name, value in values.items():
        check_name(f"field of {where}", name, fields)
        field = fields[name]
        if isinstance(field, Mapping):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}.{name} = {value!r}: expected {{field: value}}")
            if inner := _check_fields(value, field, f"{where}.{name}"):
                checked[name] = inner
        else:
            checked[name] = converted(value, field, f"{where}.{name}")
    return checked


def _without_unset(config: Fields) -> dict[str, Any]:
    """Returns a config as plain dictionaries, without its unset fields."""
    plain = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            plain[name] = _without_unset(value)
        elif value is not None:
            plain[name] = value
    return plain
