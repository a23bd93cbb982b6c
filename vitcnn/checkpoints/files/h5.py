"""Reads HDF5 files of Keras: a group for each layer, in it a dataset for each weight."""

from __future__ import annotations

import pathlib

import h5py
import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every weight of a network by its path, such as "conv1_conv/conv1_conv/kernel:0".

    Of a file of a whole model these are the datasets under "model_weights", without that prefix.
    Links that lead out of the file are not followed; nor is any that is not a hard link.

    Raises:
      ValueError: the file is truncated or damaged, is not HDF5, keeps its data in other files, has
        a link for "model_weights", or numbers its weights rather than naming them, as the
        `.weights.h5` of Keras 3 does.
    """
    arrays = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> str | None:
        """Keeps a dataset, or returns why not, which ends the visit."""
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
                refused = "'model_weights' is a link to elsewhere, which is not followed"
            elif isinstance(top := file["model_weights"], h5py.Group):
                refused = top.visititems(keep)
            else:
                raise TypeError("'model_weights' is a dataset, not a group")
    # As h5py puts it, damage is any of these.
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is truncated, or is not an HDF5 file: {error}") from error
    if refused is not None:
        raise ValueError(f"{path.name}: {refused}")
    if arrays and all("/vars/" in f"/{name}" for name in arrays):
        raise ValueError(
            f"{path.name} has numbers where the names of the weights should be, such as "
            f"{min(arrays)!r}: Keras 3 writes a .weights.h5 so; write the whole model as HDF5 "
            "instead, model.save('model.h5')"
        )
    return arrays
