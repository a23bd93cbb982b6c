"""Strict merge of a checkpoint's arrays into the variables of a network; both must match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vitcnn.lookup import nearest

_SHOWN = 12  # keys that an error lists for each side; a wrong file has hundreds


def merge(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Any], source: str) -> Any:
    """Returns `arrays` as a nested dict of float32 with exactly the keys and shapes of `shapes`.

    Args:
      arrays: the checkpoint by full name, such as "params/head/kernel".
      shapes: the variables of the network as a nested dict; its leaves have a `shape`.
      source: name of the checkpoint in errors.

    Raises:
      ValueError: keys are missing or unexpected, or arrays have another shape or are not finite;
        one message lists all of them, with the nearest name of the other side.
    """
    expected = {
        key: tuple(leaf.shape) for key, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
    }
    missing = [key for key in expected if key not in arrays]
    unexpected = [key for key in arrays if key not in expected]
    misshapen = [
        f"{key}: {_shape(arrays[key].shape)} in the checkpoint, {_shape(shape)} in the network"
        for key, shape in expected.items()
        if key in arrays and arrays[key].shape != shape
    ]
    lines = [
        *_list("missing from the checkpoint", missing, unexpected),
        *_list("unexpected in the checkpoint", unexpected, missing),
        *_list("of another shape", misshapen),
    ]
    if lines:
        raise ValueError("\n".join([f"{source} does not fit the network:", *lines]))
    merged = {key: np.asarray(arrays[key], np.float32) for key in expected}
    if bad := [key for key, value in merged.items() if not np.isfinite(value).all()]:
        lines = _list("not finite", bad)
        raise ValueError("\n".join([f"{source} is damaged:", *lines]))
    return traverse_util.unflatten_dict(merged, sep="/")


def _near(key: str, others: list[str]) -> str:
    # Without the prefix that all names share, which would make any two names look alike.
    others = [other.removeprefix("params/") for other in others]
    hint = nearest(key.removeprefix("params/"), others, 1) if others else ""
    return f"{key} ({hint})" if hint.startswith("did you mean") else key


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _list(title: str, entries: list[str], others: list[str] | None = None) -> list[str]:
    """Returns the lines of one side: its first entries, each with the nearest of `others`."""
    if not entries:
        return []
    shown = [_near(e, others or []) for e in entries[:_SHOWN]]  # comparing all names takes minutes
    more = [f"    ... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return [f"  {title} ({len(entries)}):", *(f"    {line}" for line in shown), *more]
