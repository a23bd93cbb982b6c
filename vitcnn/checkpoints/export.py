"""Writes our variables in the names that other tools read."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vitcnn import storage
from vitcnn.checkpoints import sidecar
from vitcnn.checkpoints.formats import google_bit_npz


def export(
    path: str | os.PathLike, variables: dict[str, Any], beside: Mapping[str, Any] | None = None
) -> None:
    """Writes variables as a NumPy archive under Google's names, such as "head/kernel".

    Files of a plain ViT or of a BiT are read by timm (`load_pretrained`) and by big_vision, those
    of a Mixer by big_vision alone. timm's ViT has no `pre_logits` and passes it over. Running
    statistics, which only our ResNets have, are under "batch_stats/".

    Args:
      path: the file to write, ending in .npz; an older one is replaced in one step.
      variables: such as `module.init` returns; float32 in the file.
      beside: what the arrays do not say, JSON-able: "preprocess", fields of
        `vitcnn.data.preprocess.Preprocess`, and "fields", those of the network that change no
        array. It is written to a file of the same name that ends in .vitcnn.json, which goes
        before what is usual for the format when the weights are loaded; None for no such file.

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
    if google_bit_npz.matches(arrays):
        arrays = google_bit_npz.rename(arrays)
    with storage.atomic(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    if beside is None:
        path.with_suffix(sidecar.BESIDE).unlink(missing_ok=True)  # of an older archive
    else:
        storage.write_json(path.with_suffix(sidecar.BESIDE), beside)
