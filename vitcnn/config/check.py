"""Checks of a config before any long work: names, types, and what has to be given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import analyses, models
from vitcnn.config.schema import (
    PRECISIONS,
    STAGE,
    Measurement,
    Training,
    model_fields,
    network_fields,
    optimizer_fields,
)
from vitcnn.data import sources
from vitcnn.lookup import REQUIRED, Field, check_name, fields_of


def check_measurement(config: Mapping[str, Any], images: Any = None) -> ConfigDict:
    """Returns a measurement with defaults for what it leaves out and without its unset fields.

    Args:
      config: fields of `Measurement`, from `measurement()` or any mapping with some of them.
      images: a ready source, if `config.data` is not to be used.

    Raises:
      ValueError: an unknown or ill-typed field, with the nearest right one, or a missing one.
    """
    full = _checked(config, Measurement)
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


def check_training(config: Mapping[str, Any]) -> ConfigDict:
    """Returns a training config with defaults for what it leaves out and without its unset fields.

    Args:
      config: fields of `Training`, from `training()` or any mapping with some of them.

    Raises:
      ValueError: an unknown or ill-typed field, with the nearest right one, or a missing one.
    """
    full = _checked(config, Training)
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
            f"config.warmup = {full['warmup']} must be from 0 to below config.steps = "
            f"{full['steps']}"
        )
    return ConfigDict(full)


def check_file_name(name: str) -> None:
    """Raises ValueError unless the name of a model, an analysis or a stage can name a file."""
    if not re.fullmatch(r"[\w.+-]+", name):  # it becomes part of file names
        raise ValueError(
            f"{name!r} cannot name a model, an analysis or a stage: use letters, digits, _.+-"
        )


def _checked(config: Mapping[str, Any], schema: type) -> dict[str, Any]:
    known = fields_of(schema)
    config = _set(config)
    for field in config:
        check_name("field of the config", field, known)
    values = {name: _typed(value, known[name], f"config.{name}") for name, value in config.items()}
    return {**{name: field.default for name, field in known.items()}, **values}


def _check_model(fields: Mapping[str, Any], where: str, fields_of_family: Any) -> dict[str, Any]:
    for needed in ("family", "variant"):
        if not fields.get(needed):
            raise ValueError(f"{where}.{needed} is not set")
    if fields.get("weights") == "":
        raise ValueError(f'{where}.weights is empty; give a path, or "random" for random weights')
    models.variant(fields["family"], fields["variant"])
    head = {name: fields[name] for name in ("family", "variant")}
    rest = {name: value for name, value in fields.items() if name not in head}
    return {**head, **_check_fields(rest, fields_of_family(head["family"]), where)}


def _check_source(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not fields.get("source"):
        raise ValueError(f"{where}.source is not set: name one of {sources.names()}")
    known = sources.fields(fields["source"])
    rest = {name: value for name, value in fields.items() if name != "source"}
    needed = [name for name, field in known.items() if field.default is REQUIRED]
    for name in needed:
        if rest.get(name) in (None, ""):
            raise ValueError(f"{where}.{name} is not set; give it with --{where}.{name}=...")
    return {"source": fields["source"], **_check_fields(rest, known, where)}


def _check_analyses(configs: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = {}
    for name, fields in configs.items():
        check_file_name(name)
        kind = fields.get("analysis") or name
        rest = {k: v for k, v in fields.items() if k != "analysis"}
        rest = _check_fields(rest, analyses.fields(kind), f"{where}.{name}")
        checked[name] = {"analysis": kind, **rest}
    return checked


def _check_fields(
    values: Mapping[str, Any], fields: Mapping[str, Any], where: str
) -> dict[str, Any]:
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
            checked[name] = _typed(value, field, f"{where}.{name}")
    return checked


def _set(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config as plain dictionaries without its unset fields."""
    plain = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            plain[name] = _set(value)
        elif value is not None:
            plain[name] = value
    return plain


def _typed(value: Any, field: Field, where: str) -> Any:
    """Returns a value in the type of its field; a ValueError says what was expected."""
    kind = field.type
    if kind is tuple:
        if isinstance(value, str):  # one name, or several as a flag has them
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            value = (value,)
        if field.item is str:  # "a,b" is two names also where a flag made one of it
            value = [part.strip() for item in value for part in str(item).split(",")]
        return tuple(value)
    if isinstance(value, list):  # a network has to be hashable
        return tuple(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    fits = {int: number and value == int(value) if number else False, bool: value in (True, False)}
    if not fits.get(kind, kind in (object, dict) or isinstance(value, kind)):
        raise ValueError(f"{where} = {value!r}: expected {_TYPES[kind]}")
    return int(value) if kind is int else bool(value) if kind is bool else value


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
