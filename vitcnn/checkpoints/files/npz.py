"""Reads NumPy archives."""

from __future__ import annotations

import collections
import pathlib
import zipfile

import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every array of an archive by its key.

    Raises:
      ValueError: the file is truncated, is not a NumPy archive, or holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            other = [name for name in names if not name.endswith(".npy")]
            twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if other:
            raise ValueError(
                f"{path.name} is not a NumPy archive: it is a zip file that holds {other[0]!r}"
            )
        if twice:
            raise ValueError(f"{path.name} holds the array {twice[0].removesuffix('.npy')!r} twice")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(
            f"{path.name} is truncated, or is not a NumPy archive (.npz): {error}"
        ) from error
    except ValueError as error:
        if "pickle" in str(error):
            raise ValueError(
                f"{path.name} holds pickled Python objects, which are refused because they can run "
                f"any code; save plain arrays, one per key, with np.savez"
            ) from error
        raise
