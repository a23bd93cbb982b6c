"""What a Result is of, in the few words that a title has room for."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import xarray

from vitcnn import results


def origin(result: xarray.Dataset) -> dict[str, Any]:
    """Returns the provenance of a Result, empty for a Dataset made in memory."""
    return results.provenance(result) if "provenance" in result.attrs else {}


def kind(provenance: Mapping[str, Any], model: str) -> str:
    """Returns the kind of a model, such as "vit" or "cnn"; "" if it is not known."""
    return provenance.get("models", {}).get(model, {}).get("kind", "")


def describe_model(provenance: Mapping[str, Any], model: str) -> str:
    """Returns what a model is, such as "vit B/16", from the provenance of a Result."""
    known = provenance.get("models", {}).get(model, {})
    said = " ".join(str(known[key]) for key in ("family", "variant") if known.get(key))
    random = known.get("weights", {}).get("format") == "random"
    return said + " (random weights)" * random


def describe_cka(result: xarray.Dataset) -> str:
    """Returns which CKA a Result has, "" for that of whole layers with the linear kernel."""
    name = result.cka.attrs.get("long_name", "") if "cka" in result else ""
    return name.removeprefix("unbiased linear CKA").removeprefix("unbiased CKA").lstrip(", ")


def describe_images(provenance: Mapping[str, Any]) -> str:
    """Returns which images a Result was measured on, and how many."""
    data, fields = provenance.get("data", {}), provenance.get("fields", {})
    name = data.get("path") or data.get("name") or data.get("source") or ""
    name = pathlib.PurePath(str(name)).name if data.get("path") else str(name)
    if data.get("split"):
        name += f" {data['split']}"
    if not fields.get("images"):
        return name
    repeats = f" \u00d7 {fields['repeats']}" if fields.get("repeats", 1) > 1 else ""
    return f"{name}, {fields['images']:,} images{repeats}".lstrip(", ")
