"""Short descriptions of what a Result shows, for titles."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import xarray

from vitcnn.numerics.arrays import Names
from vitcnn.results import datasets


def origin(result: xarray.Dataset) -> dict[str, Any]:
    """Returns the provenance of a Result, or {} for a Dataset made in memory."""
    return datasets.provenance(result) if "provenance" in result.attrs else {}


def kind(provenance: Mapping[str, Any], model: str) -> str:
    """Returns the kind of a model, such as "vit" or "cnn"; "" if the provenance has none."""
    return provenance.get("models", {}).get(model, {}).get("kind", "")


def describe_model(provenance: Mapping[str, Any], model: str) -> str:
    """Returns what a model is, such as "vit B/16", from the provenance of a Result."""
    record = provenance.get("models", {}).get(model, {})
    names = record.get("family"), record.get("variant") or record.get("architecture")
    description = " ".join(filter(None, names))
    random = record.get("weights", {}).get("format") == "random"
    return description + " (random weights)" * random


def describe_cka(result: xarray.Dataset) -> str:
    """Returns which CKA a Result holds, such as "RBF kernel, class token".

    It is "" for the plain CKA: linear kernel, all tokens of a layer.
    """
    name = result.cka.attrs.get("long_name", "") if "cka" in result else ""
    return name.removeprefix("unbiased linear CKA").removeprefix("unbiased CKA").lstrip(", ")


def describe_images(provenance: Mapping[str, Any]) -> str:
    """Returns which images a Result was measured on, and how many, in up to a line."""
    data, fields = provenance.get("data", {}), provenance.get("fields", {})
    name = data.get("path") or data.get("name") or data.get("source") or ""
    name = pathlib.PurePath(str(name)).name if data.get("path") else str(name)
    if data.get("split"):
        name += f" {data['split']}"
    if not fields.get("images"):
        return name
    repeats = f" \u00d7 {fields['repeats']}" if fields.get("repeats", 1) > 1 else ""
    return f"{name}, {fields['images']:,} images{repeats}".lstrip(", ")


def panel_title(
    result: xarray.Dataset, models: Names | None = None, measure: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Returns the title of a panel and the lines below it, from the provenance of a Result.

    Args:
      result: Result that the panel shows.
      models: the models that the panel shows; all models of the Result if None.
      measure: what the panel shows of them, where that needs saying.

    Returns:
      (names of the models, lines: what the models are, the measure, and which images).
    """
    provenance = origin(result)
    names = list(dict.fromkeys(provenance.get("models", ()) if models is None else models))
    if "ablation" in provenance:
        runs, seeds = len(names), provenance["seeds"]
        of = f"{runs} {'run' if runs == 1 else 'runs'} of {seeds} seeds"
        kinds = dict.fromkeys(describe_model(provenance, name) for name in names)
        lines = ", ".join(kinds), of, describe_images(provenance)
        return provenance["ablation"], tuple(filter(None, lines))
    descriptions = dict.fromkeys(describe_model(provenance, name) for name in names)
    lines = ", ".join(filter(None, descriptions)), measure, describe_images(provenance)
    return " and ".join(names), tuple(filter(None, lines))
