"""Checkpoints: foreign formats one a file, merged strictly into the variables of a network.

A format is a file of this folder with `matches(keys)`, whether a checkpoint with these keys is of
this format; `convert(raw, module)`, its arrays under our names ("params/..." and
"batch_stats/..."); `FAMILY`, the file in `vitcnn.models` that they fit; and `PREPROCESS`, the
preprocessing that the weights were trained with, as fields of `vitcnn.data.preprocess.Preprocess`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import pathlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import flax.linen as nn

from vitcnn import lookup
from vitcnn.checkpoints._merge import merge
from vitcnn.checkpoints._read import read
from vitcnn.checkpoints._trained import WEIGHTS, trained
from vitcnn.checkpoints._write import export

__all__ = ["WEIGHTS", "Restored", "export", "read", "restore", "trained"]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint as a network wants it.

    Attributes:
      variables: a pytree such as `module.init` returns, float32 NumPy arrays.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess` that the weights were trained with.
      provenance: JSON-able: name of the file, SHA-256 of its bytes, name of the format.
    """

    variables: dict[str, Any]
    preprocess: dict[str, Any]
    provenance: dict[str, str]


def restore(
    path: str | os.PathLike, family: str, module: nn.Module, shapes: dict[str, Any]
) -> Restored:
    """Reads a checkpoint of any known format into the variables of a network.

    Args:
      path: the file.
      family: name of the network's family, such as "vit".
      module: the network.
      shapes: shapes of its variables: `jax.eval_shape(module.init, key, images)`.

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
    variables = merge(adapter.convert(raw, module), shapes, f"{path.name} (format {name!r})")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Restored(
        variables,
        dict(adapter.PREPROCESS),
        {"path": path.name, "sha256": digest, "format": name},
    )


def _adapter(path: pathlib.Path, keys: Iterable[str]) -> tuple[str, ModuleType]:
    """Returns the one format that knows the keys, with its name."""
    keys = list(keys)
    names = lookup.names_in(sys.modules[__name__])
    for name in names:
        adapter = importlib.import_module(f"{__name__}.{name}")
        if adapter.matches(keys):
            return name, adapter
    shown = ", ".join(map(repr, keys[:6])) + (" ..." if len(keys) > 6 else "")
    raise ValueError(
        f"{path.name}: no known format has its {len(keys)} keys, which are {shown}; known formats: "
        f"{', '.join(names)}"
    )
