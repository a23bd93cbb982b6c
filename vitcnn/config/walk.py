"""A walk through all fields of a config, for --help and for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vitcnn import analyses, models
from vitcnn.config.schema import (
    Measurement,
    Training,
    model_fields,
    network_fields,
    optimizer_fields,
)
from vitcnn.data import sources
from vitcnn.lookup import REQUIRED, Field, fields_of


def walk(config: Mapping[str, Any], where: str = "config") -> Iterator[tuple[str, Any, Field]]:
    """Yields (path, value, field) of every field of a config that a flag can set.

    Args:
      config: from `measurement()` or `training()`.
      where: what the paths begin with.
    """
    schema = fields_of(Training if "steps" in config else Measurement)
    for name, field in schema.items():
        path, value = f"{where}.{name}", config[name]
        if name in ("models", "analyses"):
            for key, inner in value.items():
                yield from _walk_thing(inner, f"{path}.{key}")
        elif name == "stages":
            for key, inner in value.items():
                yield from _walk_thing(inner.data, f"{path}.{key}.data")
                for job, fields in inner.analyses.items():
                    yield from _walk_thing(fields, f"{path}.{key}.analyses.{job}")
        elif name in ("data", "eval_data", "model"):
            yield from _walk_thing(value, path, network_fields if name == "model" else model_fields)
        elif name == "optimizer_fields":
            yield from _walk_fields(value, optimizer_fields(config["optimizer"]), path)
        else:
            yield path, value, field


def _walk_thing(thing: Mapping[str, Any], where: str, of_family: Any = model_fields):
    if not thing:
        return
    if "family" in thing:
        heads, fields = _MODEL_HEADS, of_family(thing["family"])
        variant = models.variant(thing["family"], thing["variant"])
        fields = {
            name: dataclasses.replace(field, default=variant[name]) if name in variant else field
            for name, field in fields.items()
        }
    elif "source" in thing:
        heads, fields = _SOURCE_HEADS, sources.fields(thing["source"])
    else:
        heads, fields = _ANALYSIS_HEADS, analyses.fields(thing["analysis"])
    for name, meaning in heads.items():
        yield f"{where}.{name}", thing[name], Field(name, str, REQUIRED, meaning)
    yield from _walk_fields(thing, fields, where)


_MODEL_HEADS = {
    "family": "a file of vitcnn/models; another one has other fields: change it in the config",
    "variant": "usual name of the network, such as B/16 or R50x1",
}


_SOURCE_HEADS = {
    "source": "a file of vitcnn/data/sources; another one has other fields: change it in the config"
}


_ANALYSIS_HEADS = {"analysis": "a file of vitcnn/analyses; it has the fields below"}


def _walk_fields(values: Mapping[str, Any], fields: Mapping[str, Any], where: str):
    for name, field in fields.items():
        if isinstance(field, Mapping):
            yield from _walk_fields(values[name], field, f"{where}.{name}")
        else:
            yield f"{where}.{name}", values[name], field
