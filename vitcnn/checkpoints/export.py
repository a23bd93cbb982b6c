"""Export: writes our variables under the names that other tools read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vitcnn import storage
from vitcnn.checkpoints import sidecars
from vitcnn.checkpoints.formats import google_bit_npz


def export(
    path: str | os.PathLike, variables: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> None:
    """Writes variables as a NumPy archive under Google's names, such as "head/kernel".

    timm (`load_pretrained`) and big_vision read the files of a plain ViT or of a BiT; only
    big_vision reads those of a Mixer. timm's ViT has no `pre_logits` and ignores it. Running
    statistics are under "batch_stats/", and only our ResNets have any.

    Args:
      path: the file to write, ending in .npz; an older file is replaced in one step.
      variables: such as `module.init` returns; the file has float32.
      settings: what the arrays do not say, JSON-able: "preprocess", fields of
        `vitcnn.data.preprocess.Preprocess`, and "fields", fields of the network that change no
        array. They go to a sidecar, a file of the same name that ends in .vitcnn.json, and override
        the defaults of the format when the weights are loaded. None for no sidecar.

    Raises:
      ValueError: the path does not end in .npz.
    """
    path = storage.as_path(path, "the path of the weights")
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
    if settings is None:
        storage.remove(path.with_suffix(sidecars.OWN))  # an older archive's
    else:
        storage.write_json(path.with_suffix(sidecars.OWN), settings)
