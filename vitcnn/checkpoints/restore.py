"""Restoring: the arrays of a checkpoint, strictly merged into the variables of a network."""

from __future__ import annotations

import dataclasses
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

from vitcnn import lookup, models
from vitcnn.checkpoints import formats, own_names, positions, sidecar
from vitcnn.checkpoints.digest import sha256 as digest
from vitcnn.checkpoints.files import read
from vitcnn.checkpoints.merge import merge
from vitcnn.layers import images as image_sizes


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights as a network needs them, and everything else that the checkpoint says.

    Attributes:
      variables: a pytree such as `module.init` returns.
      fields: fields of the network that the weights imply. Only `num_classes`, which is there if it
        differs from the network's, changes the shape of arrays.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess` that the weights were trained with.
      provenance: JSON-able: the name of the file, the SHA-256 of its bytes, the name of its format,
        and "arrays", the counts of the merge. Where they apply: the arrays that were "resized", the
        arrays that are "new", and the file that the "preprocess" fields come from.
    """

    variables: Mapping[str, Any]
    fields: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    provenance: dict[str, Any]


def restore(
    path: str | os.PathLike,
    family: str,
    module: nn.Module,
    shapes: Mapping[str, Any],
    *,
    position_resize: str = "bicubic",
    position_grid: tuple[int, int] | None = None,
    new_head: Mapping[str, np.ndarray] | None = None,
    any_classes: bool = False,
    sha256: str | None = None,
) -> Checkpoint:
    """Reads a checkpoint of any known format into the variables of a network.

    Args:
      path: the file, or the folder of one orbax step.
      family: name of the network's family, such as "vit".
      module: the network.
      shapes: shapes of its variables: `jax.eval_shape(module.init, key, images)`.
      position_resize: how position embeddings are resized to another grid: "bicubic" as in timm, or
        "linear" as in Google's vision_transformer.
      position_grid: (rows, columns) of the patches that the weights were trained on; None for a
        square.
      new_head: arrays by full name that replace the checkpoint's head; None keeps its own head.
      any_classes: whether a head with another number of classes replaces the network's.
      sha256: of the file, if it is known; None to compute it.

    Returns:
      The checkpoint, with float32 NumPy arrays.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the file is PyTorch's, and torch is not installed.
      ValueError: the file cannot be read, its format is unknown or belongs to another family, or
        its keys and shapes are not the network's; one message lists both sides.
    """
    path = pathlib.Path(path)
    traits = models.traits(family)
    raw, expected = read(path), flat(shapes)
    name, file_format = _find_format(path, raw, family, expected)
    label = f"{path.name} (format {name!r})"
    try:
        arrays = file_format.convert(raw, module)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
    provenance = {"path": path.name, "sha256": sha256 or digest(path), "format": name}
    fields, preprocess, sidecar_file = _settings(path, file_format, module)
    if new_head is not None:
        arrays = {k: v for k, v in arrays.items() if not _is_head(k, traits)} | dict(new_head)
        provenance["new"] = sorted(new_head)
    elif any_classes and (classes := _classes(arrays, expected, traits)) is not None:
        expected = _with_classes(expected, classes, traits)
        fields["num_classes"] = classes
    if (table := arrays.get(traits.positions)) is not None and traits.positions in expected:
        count = expected[traits.positions].shape[1]
        resized = _resized(table, count, module, position_resize, position_grid)
        if resized is not table:
            arrays[traits.positions] = resized
            provenance["resized"] = {
                traits.positions: [list(table.shape), list(resized.shape)],
                "method": position_resize,
            }
    try:
        variables = merge(arrays, expected, label)
    except ValueError as error:
        if hints := _hints(arrays, expected, traits):
            raise ValueError("\n  ".join([str(error), *hints])) from None
        raise
    if sidecar_file is not None:
        provenance["preprocess"] = sidecar_file
    bare = {key.removeprefix("params/") for key in raw}
    provenance["arrays"] = {
        "in_file": len(raw),
        "in_network": len(expected),
        "renamed": sum(key.removeprefix("params/") not in bare for key in expected),
    }
    return Checkpoint(variables, fields, preprocess, provenance)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested dicts by full name, "params/head/kernel"."""
    return traverse_util.flatten_dict(tree, sep="/")


def _settings(
    path: pathlib.Path, file_format: ModuleType, module: nn.Module
) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Returns fields of the network, fields of the preprocessing, and the file of the latter.

    The format has defaults for both; JSON next to the weights overrides them.
    """
    fields = dict(getattr(file_format, "FIELDS", {}))
    preprocess = dict(file_format.PREPROCESS)
    beside = getattr(file_format, "SIDECAR", sidecar.read_own)(path)
    fields |= {name: value for name, value in beside.fields.items() if hasattr(module, name)}
    return fields, preprocess | beside.preprocess, beside.file


def _find_format(
    path: pathlib.Path, keys: Iterable[str], family: str, expected: Iterable[str]
) -> tuple[str, ModuleType]:
    """Returns the format of a checkpoint, with its name.

    A format of this family comes first; then our own names, since a user's network may share names
    with a family of ours.

    Raises:
      ValueError: no format matches, or a format of another family does.
    """
    own = own_names.NAME, own_names
    if path.is_dir():  # only our own runs write orbax steps
        return own
    keys = list(keys)
    known = {name: _format(name) for name in lookup.names_in(formats)}
    matching = {name: file for name, file in known.items() if file.matches(keys)}
    for name, file in matching.items():
        if family == file.FAMILY:
            return name, file
    if own_names.matches(keys, expected):
        return own
    for name, file in matching.items():
        raise ValueError(
            f"{path.name} is of the format {name!r}, which holds weights of the family "
            f"{file.FAMILY!r}, but the network is of the family {family!r}"
        )
    shown = ", ".join(map(repr, keys[:6])) + (" ..." if len(keys) > 6 else "")
    raise ValueError(
        f"{path.name}: no known format has its {len(keys)} keys, which are {shown}; known formats: "
        f"{', '.join([*known, own_names.NAME])}{_nearest(keys, known)}"
    )


def _format(name: str) -> ModuleType:
    return importlib.import_module(f"{formats.__name__}.{name}")


def _nearest(keys: Iterable[str], known: Mapping[str, ModuleType]) -> str:
    """Returns the end of an error: the two formats that share most keys with a file, if any do.

    Endings of keys are compared, because most often an unknown prefix is all that differs.
    """
    endings = {key[start:] for key in keys for start in _starts(key)}
    lines = []
    for name, file in known.items():
        signature = getattr(file, "SIGNATURE", frozenset())
        present, absent = sorted(signature & endings), sorted(signature - endings)
        if present:
            line = f"{name!r} (family {file.FAMILY!r}) has {', '.join(map(repr, present))} too"
            line += f", but also {', '.join(map(repr, absent))}" if absent else " (other prefix?)"
            lines.append((-len(present) / len(signature), line))
    return "; nearest: " + "; ".join(line for _, line in sorted(lines)[:2]) if lines else ""


def _starts(key: str) -> list[int]:
    """Returns where the parts of a dotted key begin."""
    return [0, *(i + 1 for i, letter in enumerate(key) if letter == ".")]


def _is_head(name: str, traits: models.Traits) -> bool:
    heads = "|".join(map(re.escape, traits.heads))
    return re.fullmatch(rf"params/({heads})/.+", name) is not None


def _classes(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], traits: models.Traits
) -> int | None:
    """Returns the number of classes of the checkpoint's head; None unless it differs."""
    if not traits.heads:
        return None
    bias = f"params/{traits.heads[0]}/bias"
    theirs, ours = arrays.get(bias), expected.get(bias)
    if theirs is None or ours is None or theirs.ndim != 1 or theirs.shape == ours.shape:
        return None
    return len(theirs)


def _with_classes(
    expected: Mapping[str, Any], classes: int, traits: models.Traits
) -> dict[str, Any]:
    """Returns the expected shapes with another number of classes."""
    heads = {
        key: jax.ShapeDtypeStruct((*leaf.shape[:-1], classes), leaf.dtype)
        for key, leaf in expected.items()
        if _is_head(key, traits)
    }
    return {**expected, **heads}


def _resized(
    table: np.ndarray,
    count: int,
    module: nn.Module,
    method: str,
    grid: tuple[int, int] | None,
) -> np.ndarray:
    """Returns a position embedding resized to the network's grid; itself if it has that grid.

    Args:
      table: the position embedding of the checkpoint.
      count: positions of the network.
      module: the network.
      method: see `positions.resize`.
      grid: (rows, columns) of the checkpoint; None for a square.
    """
    after = image_sizes.grid(module.image_size, module.patch)
    prefix = count - math.prod(after)
    patches = table.shape[1] - prefix if table.ndim == 3 else 0
    if patches <= 0:
        return table  # the merge reports the mismatch
    if grid is not None:
        before = (int(grid[0]), int(grid[1]))
    else:
        side = math.isqrt(patches)
        if side * side != patches:  # either the network's own grid, or the merge reports it
            return table
        before = (side, side)
        if patches == math.prod(after) and before != after:
            raise ValueError(
                f"{patches} positions may be a grid of {side} x {side} or of {after[0]} x "
                f"{after[1]}; set position_grid=(rows, columns) to the grid of the weights"
            )
    return positions.resize(table, prefix, before, after, method)


def _hints(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], traits: models.Traits
) -> list[str]:
    """Returns which settings would make the checkpoint fit, where the two sides differ."""
    hints = []
    for field, name in traits.widths.items():
        widths = [side[name].shape[-1] if name in side else 0 for side in (arrays, expected)]
        if widths[0] != widths[1]:
            hints.append(f"{field}={widths[0]} is how the checkpoint has it")
    theirs, ours = ({k for k in side if _is_head(k, traits)} for side in (arrays, expected))
    if ours and not theirs:
        hints.append(
            "the checkpoint has no head: num_classes=0 loads it without a head, new_head=True "
            "starts a new head"
        )
    elif bool(ours) != bool(theirs) or any(
        arrays[key].shape != tuple(expected[key].shape) for key in ours & theirs
    ):
        hints.append(
            "new_head=True drops the head of the checkpoint and starts a new one, if the network "
            "has a head"
        )
    return hints
