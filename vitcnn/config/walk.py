"""Walk: all fields of a config, for --help and for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import analyses, models
from vitcnn.config.schema import (
    Fields,
    Measurement,
    Training,
    model_fields,
    network_fields,
    optimizer_fields,
)
from vitcnn.data import sources
from vitcnn.lookup import REQUIRED, Field, fields_of


def walk(config: ConfigDict, where: str = "config") -> Iterator[tuple[str, Any, Field]]:
    """Yields (path, value, field) for every field of a config that a flag can set.

    Args:
      config: from `measurement()` or `training()`.
      where: the beginning of every path.
    """
    schema = fields_of(Training if "steps" in config else Measurement)
    for name, field in schema.items():
        path, value = f"{where}.{name}", config[name]
        if name in ("models", "analyses"):
            for key, plugin in value.items():
                yield from _walk_plugin(plugin, f"{path}.{key}")
        elif name == "stages":
            for key, stage in value.items():
                yield from _walk_plugin(stage.data, f"{path}.{key}.data")
                for job, analysis in stage.analyses.items():
                    yield from _walk_plugin(analysis, f"{path}.{key}.analyses.{job}")
        elif name in ("data", "eval_data", "model"):
            of_family = network_fields if name == "model" else model_fields
            yield from _walk_plugin(value, path, of_family)
        elif name == "optimizer_fields":
            yield from _walk_fields(value, optimizer_fields(config["optimizer"]), path)
        else:
            yield path, value, field


def _walk_plugin(plugin: Fields, where: str, of_family: Any = model_fields):
    """Yields the fields that identify a model, a source or an analysis, then its own fields."""
    if not plugin:
        return
    if "family" in plugin:
        identity, fields = _MODEL_IDENTITY, of_family(plugin["family"])
        variant = models.variant(plugin["family"], plugin["variant"])
        fields = {
            name: dataclasses.replace(field, default=variant[name]) if name in variant else field
            for name, field in fields.items()
        }
    elif "source" in plugin:
        identity, fields = _SOURCE_IDENTITY, sources.fields(plugin["source"])
    else:
        identity, fields = _ANALYSIS_IDENTITY, analyses.fields(plugin["analysis"])
    for name, meaning in identity.items():
        yield f"{where}.{name}", plugin[name], Field(name, str, REQUIRED, meaning)
    yield from _walk_fields(plugin, fields, where)


_MODEL_IDENTITY = {
    "family": "a file of vitcnn/models; families differ in their fields: change it in the config",
    "variant": "usual name of the network, such as B/16 or R50x1",
}
_SOURCE_IDENTITY = {
    "source": "a file of vitcnn/data/sources; sources differ in their fields: change it in the "
    "config"
}
_ANALYSIS_IDENTITY = {"analysis": "a file of vitcnn/analyses; the fields below are its own"}


def _walk_fields(values: Fields, fields: Fields, where: str):
    for name, field in fields.items():
        if isinstance(field, Mapping):
            yield from _walk_fields(values[name], field, f"{where}.{name}")
        else:
            yield f"{where}.{name}", values[name], field
