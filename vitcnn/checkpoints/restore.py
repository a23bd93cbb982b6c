"""Restoring: the arrays of a checkpoint, strictly merged into the variables of a network."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from vitcnn import lookup
from vitcnn.checkpoints import formats, positions, sidecar
from vitcnn.checkpoints.files import read
from vitcnn.checkpoints.merge import merge
from vitcnn.layers import image_sizes

_POSITIONS = "params/Transformer/posembed_input/pos_embedding"
_HEAD = re.compile(r"params/head(_dist)?/.+")


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint as a network wants it.

    Attributes:
      variables: a pytree such as `module.init` returns, float32 NumPy arrays.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess` that the weights were trained with.
      provenance: JSON-able: name of the file, SHA-256 of its bytes, name of the format; and, where
        it is so, which arrays were resized or new, and the file that the preprocessing is from.
      fields: fields of the network that the weights imply; of these only `num_classes`, which is
        there if it is not the network's, changes arrays.
      report: JSON-able counts of the merge: arrays in the file and in the network, and how many of
        the latter had another name.
    """

    variables: dict[str, Any]
    preprocess: dict[str, Any]
    provenance: dict[str, Any]
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    report: dict[str, int] = dataclasses.field(default_factory=dict)


def restore(
    path: str | os.PathLike,
    family: str,
    module: nn.Module,
    shapes: dict[str, Any],
    *,
    position_resize: str = "bicubic",
    position_grid: tuple[int, int] | None = None,
    new_head: Mapping[str, np.ndarray] | None = None,
    any_classes: bool = False,
) -> Restored:
    """Reads a checkpoint of any known format into the variables of a network.

    Args:
      path: the file.
      family: name of the network's family, such as "vit".
      module: the network.
      shapes: shapes of its variables: `jax.eval_shape(module.init, key, images)`.
      position_resize: how a position embedding of another grid is resized, "bicubic" as in timm, or
        "linear" as in Google's vision_transformer.
      position_grid: (rows, columns) of the grid that the weights are of; None for a square.
      new_head: arrays by full name that replace the checkpoint's head; None to take its own.
      any_classes: whether the number of classes may be the checkpoint's, where both have a head.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the file is PyTorch's, and torch is not installed.
      ValueError: the file cannot be read, is of no known format or of another family, or its keys
        and shapes are not those of the network; one message lists both sides.
    """
    path = pathlib.Path(path)
    raw = read(path)
    name, adapter = _adapter(path, raw)
    if family != adapter.FAMILY:
        raise ValueError(
            f"{path.name} is of the format {name!r}, which holds weights of the family "
            f"{adapter.FAMILY!r}, but the network is of the family {family!r}"
        )
    try:
        arrays = adapter.convert(raw, module)
    except ValueError as error:
        raise ValueError(f"{path.name} (format {name!r}): {error}") from error
    notes: dict[str, Any] = {}
    if new_head is not None:
        arrays = {k: v for k, v in arrays.items() if not _HEAD.fullmatch(k)} | dict(new_head)
        notes["new"] = sorted(new_head)
    expected, classes = flat(shapes), None
    if any_classes and new_head is None:
        expected, classes = _with_classes(expected, arrays)
    if (table := arrays.get(_POSITIONS)) is not None and _POSITIONS in expected:
        resized = _resized(table, expected[_POSITIONS], module, position_resize, position_grid)
        if resized is not table:
            arrays[_POSITIONS] = resized
            notes["resized"] = {
                _POSITIONS: [list(table.shape), list(resized.shape)],
                "method": position_resize,
            }
    try:
        variables = merge(arrays, expected, f"{path.name} (format {name!r})")
    except ValueError as error:
        if hints := _hints(arrays, expected):
            raise ValueError("\n  ".join([str(error), *hints])) from None
        raise
    fields = dict(getattr(adapter, "FIELDS", {}))
    preprocess = dict(adapter.PREPROCESS)
    beside = sidecar.beside if name.endswith("_torch") else sidecar.said_beside
    published, network, origin = beside(path)
    preprocess |= published
    if origin is not None:
        notes["preprocess"] = origin
    fields |= {k: v for k, v in network.items() if hasattr(module, k)}
    fields |= {} if classes is None else {"num_classes": classes}
    bare = {key.removeprefix("params/") for key in raw}
    return Restored(
        variables,
        preprocess,
        {"path": path.name, "sha256": _digest(path), "format": name, **notes},
        fields,
        {
            "in_file": len(raw),
            "in_network": len(expected),
            "renamed": sum(key.removeprefix("params/") not in bare for key in expected),
        },
    )


def _digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, or of all files of a folder with their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    sha = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        sha.update(f"{file.relative_to(path).as_posix()} {_digest(file)}\n".encode())
    return sha.hexdigest()


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested dicts by full name, "params/head/kernel"."""
    return traverse_util.flatten_dict(tree, sep="/")


def _resized(
    table: np.ndarray,
    expected: Any,
    module: nn.Module,
    method: str,
    grid: tuple[int, int] | None,
) -> np.ndarray:
    """Returns the position embedding in the grid of the network; itself if it has that grid."""
    after = image_sizes.grid(module.image_size, module.patch)
    prefix = expected.shape[1] - math.prod(after)
    count = table.shape[1] - prefix if table.ndim == 3 else 0
    if count <= 0:
        return table  # the merge will say what is wrong
    if grid is not None:
        before = (int(grid[0]), int(grid[1]))
    else:
        side = math.isqrt(count)
        if side * side != count:  # not a square: of this grid, or the merge will refuse it
            return table
        before = (side, side)
        if count == math.prod(after) and before != after:
            raise ValueError(
                f"{count} positions may be of a grid of {side} x {side} or of {after[0]} x "
                f"{after[1]}; say of which the weights are with position_grid=(rows, columns)"
            )
    return positions.resize(table, prefix, before, after, method)


def _with_classes(
    expected: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], int | None]:
    """Returns the shapes with a head as wide as the checkpoint's, and that width if it is new."""
    theirs = arrays.get("params/head/bias")
    mine = expected.get("params/head/bias")
    if theirs is None or mine is None or theirs.ndim != 1 or theirs.shape == mine.shape:
        return expected, None
    heads = {
        key: jax.ShapeDtypeStruct((*leaf.shape[:-1], len(theirs)), leaf.dtype)
        for key, leaf in expected.items()
        if _HEAD.fullmatch(key)
    }
    return {**expected, **heads}, len(theirs)


def _hints(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> list[str]:
    """Returns what to set where the two sides differ in what lies behind the last block."""
    hints = []
    theirs, mine = (side.get("params/pre_logits/bias") for side in (arrays, expected))
    if (theirs is None) != (mine is None) or (mine is not None and theirs.shape != mine.shape):
        width = 0 if theirs is None else len(theirs)
        hints.append(f"pre_logits={width} is how the checkpoint has it")
    mine, theirs = ({k for k in side if _HEAD.fullmatch(k)} for side in (expected, arrays))
    if mine and not theirs:
        hints.append(
            "the checkpoint has no head: num_classes=0 takes it so, new_head=True starts a new one"
        )
    elif bool(mine) != bool(theirs) or any(
        arrays[key].shape != tuple(expected[key].shape) for key in mine & theirs
    ):
        hints.append(
            "new_head=True leaves the head of the checkpoint out, and starts a new one if any"
        )
    return hints


def _adapter(path: pathlib.Path, keys: Iterable[str]) -> tuple[str, ModuleType]:
    """Returns the one format that knows the keys, with its name."""
    keys = list(keys)
    names = lookup.names_in(formats)
    for name in names:
        adapter = importlib.import_module(f"{formats.__name__}.{name}")
        if adapter.matches(keys):
            return name, adapter
    shown = ", ".join(map(repr, keys[:6])) + (" ..." if len(keys) > 6 else "")
    raise ValueError(
        f"{path.name}: no known format has its {len(keys)} keys, which are {shown}; known formats: "
        f"{', '.join(names)}{_nearest(keys, names)}"
    )


def _nearest(keys: list[str], names: list[str]) -> str:
    """Returns the end of an error: the formats that have most in common with the keys, if any.

    A key counts if it ends as one of the format: an unknown prefix is what differs most often.
    """
    endings = {key[start:] for key in keys for start in _starts(key)}
    lines = []
    for name in names:
        adapter = importlib.import_module(f"{formats.__name__}.{name}")
        signature = getattr(adapter, "SIGNATURE", frozenset())
        there = sorted(signature & endings)
        if there:
            absent = sorted(signature - endings)
            line = f"{name!r} (family {adapter.FAMILY!r}) has {', '.join(map(repr, there))} too"
            line += f", but also {', '.join(map(repr, absent))}" if absent else " (other prefix?)"
            lines.append((-len(there) / len(signature), line))
    return "; nearest: " + "; ".join(line for _, line in sorted(lines)[:2]) if lines else ""


def _starts(key: str) -> list[int]:
    """Returns where the parts of a dotted key begin."""
    return [0, *(i + 1 for i, letter in enumerate(key) if letter == ".")]
