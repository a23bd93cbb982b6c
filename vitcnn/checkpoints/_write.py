"""Writes our variables in the names that other tools read."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from vitcnn import results


def export(path: str | os.PathLike, variables: dict[str, Any]) -> None:
    """Writes variables as a NumPy archive under Google's names, such as "head/kernel".

    A ViT file is read by timm and big_vision. Running statistics, which only our ResNets have, are
    under "batch_stats/".

    Args:
      path: the file to write, ending in .npz; an older one is replaced in one step.
      variables: such as `module.init` returns; float32 in the file.

    Raises:
      ValueError: the path does not end in .npz.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path.name}: an exported checkpoint ends in .npz")
    flat = traverse_util.flatten_dict(variables, sep="/")
    arrays = {
        key.removeprefix("params/"): np.asarray(value, np.float32) for key, value in flat.items()
    }
    with results.atomic(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
