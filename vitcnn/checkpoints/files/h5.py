"""Reads HDF5 files of Keras: one group per layer, with one dataset per weight."""

from __future__ import annotations

import pathlib

import h5py
import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every weight of a network by its path, such as "conv1_conv/conv1_conv/kernel:0".

    A file of a whole model has the weights under "model_weights", a prefix that is removed. Only
    hard links are followed, so nothing outside of the file is read.

    Raises:
      ValueError: the file is truncated or damaged, is not HDF5, keeps its data in other files, has
        a link as "model_weights", or has numbers instead of names for its weights, as the
        `.weights.h5` of Keras 3 has.
    """
    arrays = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> str | None:
        """Keeps a dataset, or returns why it is refused, which ends the visit."""
        if not isinstance(item, h5py.Dataset):
            return None
        if item.external or item.is_virtual:
            return f"{name!r} keeps its data in another file"
        if item.dtype.kind not in "fiu":
            return f"{name!r} holds {item.dtype}, not numbers"
        arrays[name] = item[...]
        return None

    try:
        with h5py.File(path) as file:
            link = file.get("model_weights", getlink=True)
            if link is None:
                refused = file.visititems(keep)
            elif not isinstance(link, h5py.HardLink):
                refused = "'model_weights' is a link to elsewhere, and only hard links are followed"
            elif isinstance(top := file["model_weights"], h5py.Group):
                refused = top.visititems(keep)
            else:
                raise TypeError("'model_weights' is a dataset, not a group")
    # h5py raises any of these for a damaged file.
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is truncated, or is not an HDF5 file: {error}") from error
    if refused is not None:
        raise ValueError(f"{path.name}: {refused}")
    if arrays and all("/vars/" in f"/{name}" for name in arrays):
        raise ValueError(
            f"{path.name} has numbers where the names of the weights should be, such as "
            f"{min(arrays)!r}: Keras 3 writes .weights.h5 files this way; write the whole "
            "model as HDF5 instead, with model.save('model.h5')"
        )
    return arrays
