"""Walk: all fields of a config, for --help and for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import models
from vitcnn.config.schema import (
    PARTS,
    SINGLE,
    Ablation,
    Evaluation,
    Fields,
    Measurement,
    Training,
)
from vitcnn.lookup import REQUIRED, Field, fields_of


def walk(config: ConfigDict, where: str = "config") -> Iterator[tuple[str, Any, Field]]:
    """Yields (path, value, field) for every field of a config that a flag can set.

    Args:
      config: from `measurement()`, `training()` or `ablation()`. Of an ablation, the differences of
        its runs are left out.
      where: the beginning of every path.
    """
    kinds = {"baseline": Ablation, "steps": Training}
    schema = next((kinds[field] for field in kinds if field in config), Measurement)
    yield from _walk(config, schema, where)


def _walk(config: Fields, schema: type, where: str) -> Iterator[tuple[str, Any, Field]]:
    for name, field in fields_of(schema).items():
        path, value = f"{where}.{name}", config[name]
        if name == "baseline":
            yield from _walk(value, Training, path)
        elif (
            schema is Ablation and field.type is dict and name not in ("data", "analyses", "stages")
        ):
            continue
        elif name == "models":
            for key, model in value.items():
                yield from _walk_part(model, "model", f"{path}.{key}")
        elif name == "analyses":
            yield from _walk_analyses(value, path)
        elif name == "stages":
            for key, stage in value.items():
                yield from _walk_part(stage.data, "source", f"{path}.{key}.data")
                yield from _walk_analyses(stage.analyses, f"{path}.{key}.analyses")
        elif name == "evaluations":
            for key, evaluation in value.items():
                yield from _walk(evaluation, Evaluation, f"{path}.{key}")
        elif name in SINGLE:
            yield from _walk_part(value, SINGLE[name], path)
        else:
            yield path, value, field


def _walk_analyses(analyses: Fields, where: str) -> Iterator[tuple[str, Any, Field]]:
    for name, analysis in analyses.items():
        yield from _walk_part(analysis, "analysis", f"{where}.{name}")


def _walk_part(values: Fields, kind: str, where: str) -> Iterator[tuple[str, Any, Field]]:
    """Yields the fields that name a plugin, then its own fields; nothing if it is left out."""
    if not values:
        return
    part = PARTS[kind]
    fields = part.fields(*(values[name] for name in part.identity))
    if values.get("family"):
        variant = models.variant(values["family"], values["variant"])
        fields = {
            name: dataclasses.replace(field, default=variant[name]) if name in variant else field
            for name, field in fields.items()
        }
    for name, meaning in part.identity.items():
        yield f"{where}.{name}", values[name], Field(name, str, REQUIRED, meaning)
    yield from _walk_fields(values, fields, where)


def _walk_fields(values: Fields, fields: Fields, where: str):
    for name, field in fields.items():
        if isinstance(field, Mapping):
            yield from _walk_fields(values[name], field, f"{where}.{name}")
        else:
            yield f"{where}.{name}", values[name], field
