"""Reads HDF5 files of Keras: a group for each layer, in it a dataset for each weight."""

from __future__ import annotations

import pathlib

import h5py
import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every weight of a network by its path, such as "conv1_conv/conv1_conv/kernel:0".

    Of a file of a whole model these are the datasets under "model_weights", without that prefix.
    Links that lead out of the file are not followed.

    Raises:
      ValueError: the file is truncated, is not HDF5, keeps its data in other files, or numbers its
        weights rather than naming them, as the `.weights.h5` of Keras 3 does.
    """
    arrays = {}
    try:
        with h5py.File(path) as file:
            top = file.get("model_weights", file)

            def keep(name, item):
                if not isinstance(item, h5py.Dataset):
                    return
                if item.external or item.is_virtual:
                    raise ValueError(f"{path.name}: {name!r} keeps its data in another file")
                if item.dtype.kind not in "fiu":
                    raise ValueError(f"{path.name}: {name!r} holds {item.dtype}, not numbers")
                arrays[name] = item[...]

            top.visititems(keep)
    except OSError as error:
        raise ValueError(f"{path.name} is truncated, or is not an HDF5 file: {error}") from error
    if arrays and all("/vars/" in f"/{name}" for name in arrays):
        raise ValueError(
            f"{path.name} has numbers where the names of the weights should be, such as "
            f"{min(arrays)!r}: Keras 3 writes a .weights.h5 so; write the whole model as HDF5 "
            "instead, model.save('model.h5')"
        )
    return arrays
