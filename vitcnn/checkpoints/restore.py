"""Restoring: the arrays of a checkpoint, strictly merged into the variables of a network."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import math
import os
import re
import types
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from vitcnn import lookup, models, storage
from vitcnn.checkpoints import (
    formats,
    google_names,
    implied,
    own_names,
    positions,
    sidecars,
    torch_names,
)
from vitcnn.checkpoints.digest import sha256 as digest
from vitcnn.checkpoints.files import open_file, state
from vitcnn.checkpoints.files.contents import Contents, renamed
from vitcnn.checkpoints.merge import merge
from vitcnn.layers import image_sizes
from vitcnn.storage import Path


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights as a network needs them, and everything else that the checkpoint says.

    Attributes:
      variables: a pytree such as `module.init` returns.
      fields: fields of the network that the weights imply and that differ from the network's. Only
        `num_classes` changes the shape of arrays.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess` that the weights were trained with.
      provenance: JSON-able: the name of the file, the SHA-256 of its bytes, the name of its format,
        and "arrays", the counts of the merge. Where they apply: the types of floats that were
        "cast_to_float32", the arrays that were "resized", the arrays that are "new", which
        "network" of a file with several these are, the "native_size" that they were trained with,
        where the "preprocess" fields come from, "contradicted" fields, and the "class_names" of the
        head.
      preprocess_guess: where the preprocessing comes from if nothing says that it is that of these
        weights; else None.
    """

    variables: Mapping[str, Any]
    fields: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    provenance: dict[str, Any]
    preprocess_guess: str | None = None


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """A file of weights, read: everything that it says before a network is chosen.

    Attributes:
      path: the file, or the folder of one orbax step.
      sha256: of its content.
      arrays: its arrays, by the keys of the file.
      network: which of several networks in the file the arrays are; None if it holds one.
      types: the types of floats that were cast to float32, such as ("bfloat16",).
      format_name, format: the format whose keys they are.
      implied: what the weights imply beyond their arrays.
    """

    path: Path
    sha256: str
    arrays: Mapping[str, np.ndarray]
    network: str | None
    types: tuple[str, ...]
    format_name: str
    format: ModuleType
    implied: implied.Implied

    @property
    def label(self) -> str:
        """Name of the weights in errors."""
        return f"{self.path.name} (format {self.format_name!r})"

    def convert(self, module: nn.Module | None) -> dict[str, np.ndarray]:
        """Returns the arrays under our names.

        Args:
          module: the network that they are for; None for arrays as the file has them, without what
            only the fields of a network tell, such as an axis of heads.

        Raises:
          ValueError: our networks do not support the network of the file.
        """
        try:
            return self.format.convert(self.arrays, module)
        except ValueError as error:
            raise ValueError(f"{self.label}: {error}") from error


def read_file(
    path: str | os.PathLike,
    family: str | None = None,
    names: Iterable[str] = (),
    *,
    average: bool = True,
    sha256: str | None = None,
    contents: Contents | None = None,
) -> WeightsFile:
    """Reads a checkpoint of any known format.

    Args:
      path: the file, or the folder of one orbax step.
      family: name of the network's family, such as "vit"; None if the file decides it.
      names: full names of the variables of the network, if it is known.
      average: whether to take the moving average of the weights where a file has both.
      sha256: of the file, if it is known; None to compute it.
      contents: what the file holds, if it is known; None to read it.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the file is PyTorch's, and torch is not installed.
      ValueError: the file cannot be read, its format is unknown or belongs to another family, or
        what lies beside the weights contradicts them or is not supported.
    """
    path = storage.as_path(path, "the path of a checkpoint")
    if (shard := re.search(r"-\d+-of-(\d+)\.\w+$", path.name)) and int(shard[1]) > 1:
        raise ValueError(
            f"{path.name} is one of several shards: give the folder, or the index beside it"
        )
    contents = contents or open_file(path, average)
    arrays, network = _one_network(contents, average, path)
    arrays = _without_prefix(arrays, path)
    format_name, file_format = _find_format(path, arrays, family, names)
    sha256 = sha256 or digest(path)
    facts = implied.read(path, sha256, contents.architecture, format_name, file_format, arrays)
    return WeightsFile(
        path, sha256, arrays, network, contents.types, format_name, file_format, facts
    )


def restore(
    weights: str | os.PathLike | WeightsFile,
    family: str,
    module: nn.Module,
    shapes: Mapping[str, Any],
    *,
    position_resize: str = "bicubic",
    position_grid: tuple[int, int] | None = None,
    new_head: Mapping[str, np.ndarray] | None = None,
    chosen: Mapping[str, Any] = types.MappingProxyType({}),
    average: bool = True,
    is_recorded: bool = False,
) -> Checkpoint:
    """Reads a checkpoint of any known format into the variables of a network.

    Args:
      weights: the file, or the folder of one orbax step; or such a file that `read_file` has read.
      family: name of the network's family, such as "vit".
      module: the network.
      shapes: shapes of its variables: `jax.eval_shape(module.init, key, images)`.
      position_resize: how position embeddings are resized to another grid: "bicubic" as in timm, or
        "linear" as in Google's vision_transformer.
      position_grid: (rows, columns) of the patches that the weights were trained on; None for a
        square.
      new_head: arrays by full name that replace the checkpoint's head; None keeps its own head. A
        layer of `Traits.widths` goes with the old head where `chosen` has 0 for its field.
      chosen: the fields of the network that the caller has set. Of the others the weights decide
        those that change no array, and num_classes.
      average: whether to take the moving average of the weights where a file has both; for a file
        that has been read, that is decided.
      is_recorded: whether the run that wrote the file has recorded its network, so that nothing has
        to be assumed that the arrays do not show.

    Returns:
      The checkpoint, with float32 NumPy arrays.

    Raises:
      FileNotFoundError, ImportError: see `read_file`.
      ValueError: see `read_file`; or keys and shapes are not the network's, and one message lists
        both sides; or what lies beside the weights contradicts them.

    Warns:
      UserWarning: a field that the caller has set contradicts what lies beside the weights, or the
        weights were trained with images of another size than the network's.
    """
    traits = models.traits(family)
    expected = flat(shapes)
    file = (
        weights
        if isinstance(weights, WeightsFile)
        else read_file(weights, family, expected, average=average)
    )
    raw, label, said = file.arrays, file.label, file.implied
    provenance = {"path": file.path.name, "sha256": file.sha256, "format": file.format_name}
    if file.network is not None:
        provenance["network"] = file.network
    if file.types:
        provenance["cast_to_float32"] = list(file.types)
    said = dataclasses.replace(said, assumed={}) if is_recorded else said
    fields, contradictions = implied.adopted(said, module, shapes, chosen, label)
    if contradictions:
        provenance["contradicted"] = contradictions
        warnings.warn(f"{label} is used with {'; '.join(contradictions)}", stacklevel=3)
    arrays = file.convert(module)
    _check_classes(arrays, said, traits, label, new_head)
    if new_head is not None:
        hidden = tuple(  # layers in front of the head that the caller leaves out
            f"{array.rpartition('/')[0]}/"
            for field, array in traits.widths.items()
            if field in chosen and not chosen[field]
        )
        dropped = [k for k in arrays if _is_head(k, traits) or k.startswith(hidden)]
        arrays = {k: v for k, v in arrays.items() if k not in dropped} | dict(new_head)
        provenance["new"] = sorted(new_head)
    elif (
        "num_classes" not in chosen and (classes := _classes(arrays, expected, traits)) is not None
    ):
        expected = _with_classes(expected, classes, traits)
        fields["num_classes"] = classes
    native = implied.native_size(said)
    if (table := arrays.get(traits.positions)) is not None and traits.positions in expected:
        count = expected[traits.positions].shape[1]
        resized, grid = _resized(table, count, module, position_resize, position_grid)
        patch = image_sizes.pair(module.patch)
        trained = grid[0] * patch[0], grid[1] * patch[1]
        if native not in (None, trained) and resized.shape[1] == count:
            raise ValueError(
                f"{label} has positions for images of {trained[0]} x {trained[1]} pixels, and "
                f"{said.source} says {native[0]} x {native[1]}; correct it, or move it away if it "
                "does not describe these weights"
            )
        if resized is not table:
            native = trained
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
    size = image_sizes.pair(module.image_size)
    if native is not None and native != size:
        provenance["native_size"] = list(native)
        if "image_size" not in chosen:
            warnings.warn(
                f"{label} was trained with images of {native[0]} x {native[1]} pixels, and the "
                f"network runs at {size[0]} x {size[1]}, the size of its variant; set image_size="
                f"{native[0] if native[0] == native[1] else native} to run it as it was trained",
                stacklevel=3,
            )
    if said.class_names and new_head is None:
        provenance["class_names"] = list(said.class_names)
    if said.origin is not None:
        provenance["preprocess"] = f"guess: {said.origin}" if said.is_guess else said.origin
    bare = {key.removeprefix("params/") for key in raw}
    provenance["arrays"] = {
        "in_file": len(raw),
        "in_network": len(expected),
        "renamed": sum(key.removeprefix("params/") not in bare for key in expected),
    }
    guess = said.origin if said.is_guess else None
    return Checkpoint(variables, fields, said.preprocess, provenance, guess)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested dicts by full name, "params/head/kernel"."""
    return traverse_util.flatten_dict(tree, sep="/")


def _one_network(
    contents: Contents, average: bool, path: Path
) -> tuple[dict[str, np.ndarray], str | None]:
    """Returns the arrays of one network of a file, and which one it is where there are several."""
    arrays, network = dict(contents.arrays), contents.network
    try:
        for names in (torch_names, google_names):
            arrays, chosen = names.one_network(arrays, average)
            network = chosen or network
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return arrays, network


def _without_prefix(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays without what training scripts put in front of the names of a network.

    It is the longest beginning of at least half of the keys without which they are those of a known
    format; keys that begin otherwise stay, and the merge reports them.

    Raises:
      ValueError: two keys are the same without it.
    """
    known = [_format(name) for name in lookup.names_in(formats)]
    if any(file.matches(list(arrays)) for file in known):
        return arrays
    starts = collections.Counter(key[:start] for key in arrays for start in _starts(key)[1:])
    common = [start for start, count in starts.items() if 2 * count >= len(arrays)]
    for start in sorted(common, key=len, reverse=True):
        names = [(key.removeprefix(start), key) for key in arrays]
        distinct = list(dict(names))
        if any(file.matches(distinct) for file in known):
            try:
                return {name: arrays[key] for name, key in renamed(names).items()}
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}") from error
    return arrays


def _check_classes(
    arrays: Mapping[str, np.ndarray],
    said: implied.Implied,
    traits: models.Traits,
    label: str,
    new_head: Mapping[str, np.ndarray] | None,
) -> None:
    """Raises ValueError if the JSON beside weights counts other classes than their head has."""
    bias = arrays.get(f"params/{traits.heads[0]}/bias") if traits.heads else None
    if bias is None or new_head is not None or said.classes in (None, len(bias)):
        return
    raise ValueError(
        f"{label} has a head of {len(bias)} classes, and {said.source} says {said.classes}; "
        "correct the JSON, or move it away if it does not describe these weights"
    )


def _find_format(
    path: Path, keys: Iterable[str], family: str | None, expected: Iterable[str]
) -> tuple[str, ModuleType]:
    """Returns the format of a checkpoint, with its name.

    A format of this family comes first; then our own names, since a user's network may share names
    with a family of ours.

    Raises:
      ValueError: no format matches, or a format of another family does.
    """
    own = own_names.NAME, own_names
    if path.is_dir() or path.suffix == state.SUFFIX:  # only our own runs write states
        return own
    keys = list(keys)
    known = {name: _format(name) for name in lookup.names_in(formats)}
    matching = {name: file for name, file in known.items() if file.matches(keys)}
    for name, file in matching.items():
        if family in (None, file.FAMILY):
            return name, file
    if own_names.matches(keys, expected):
        return own
    for name, file in matching.items():
        raise ValueError(
            f"{path.name} is of the format {name!r}, which holds weights of the family "
            f"{file.FAMILY!r}, but the network is of the family {family!r}"
        )
    sidecars.check_architecture(path)
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
) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns a position embedding resized to the network's grid, and the grid that it had.

    The embedding itself comes back if it has the network's grid.

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
        return table, after  # the merge reports the mismatch
    if grid is not None:
        before = (int(grid[0]), int(grid[1]))
    else:
        side = math.isqrt(patches)
        if side * side != patches:  # either the network's own grid, or the merge reports it
            return table, after
        before = (side, side)
        if patches == math.prod(after) and before != after:
            raise ValueError(
                f"{patches} positions may be a grid of {side} x {side} or of {after[0]} x "
                f"{after[1]}; set position_grid=(rows, columns) to the grid of the weights"
            )
    return positions.resize(table, prefix, before, after, method), before


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
