"""Reads the arrays of a checkpoint file, whatever its keys mean."""

from __future__ import annotations

import os
import pathlib
import zipfile

import numpy as np

from vitcnn.checkpoints import _h5, _orbax, _safetensors
from vitcnn.lookup import nearest

_TORCH = (".pth", ".pt", ".th", ".bin")
_KERAS = (".h5", ".hdf5")
_LFS = b"version https://git-lfs.github.com/spec"


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every array of a checkpoint by its key.

    Nothing in the file is executed: pickled objects are refused.

    Args:
      path: a NumPy archive (.npz), a safetensors file, a PyTorch checkpoint (.pth, .pt, .th, .bin),
        an HDF5 file of Keras (.h5, .hdf5), or a step of a training run (checkpoints/500).

    Raises:
      FileNotFoundError: there is no such file; the message gives the nearest names in its folder.
      ImportError: the file is PyTorch's, and torch is not installed.
      ValueError: the file is of another kind, is truncated, holds pickled objects or no arrays, or
        is a git-LFS pointer.
    """
    path = pathlib.Path(path)
    if path.is_dir() and path.name.isdigit():
        return _orbax.read(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"no checkpoint file {str(path)!r}: {nearest(path.name, sorted(siblings))}"
        )
    if path.suffix not in (".npz", ".safetensors", *_TORCH, *_KERAS):
        raise ValueError(
            f"{path.name}: a checkpoint ends in .npz (NumPy), .safetensors, .pth, .pt, .th or "
            ".bin (PyTorch), or .h5 or .hdf5 (Keras)"
        )
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise ValueError(
                f"{path.name} is a git-LFS pointer, not the weights it stands for; run `git lfs "
                f"pull` where it was cloned, or download the file itself"
            )
    if path.suffix == ".npz":
        arrays = _read_npz(path)
    elif path.suffix == ".safetensors":
        arrays = _safetensors.read(path)
    elif path.suffix in _KERAS:
        arrays = _h5.read(path)
    else:
        from vitcnn.checkpoints import _torch

        arrays = _torch.read(path)
    if not arrays:
        raise ValueError(f"{path.name} is not a checkpoint: it holds no arrays")
    return arrays


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            strange = [name for name in archive.namelist() if not name.endswith(".npy")]
        if strange:
            raise ValueError(
                f"{path.name} is not a NumPy archive: it is a zip file that holds {strange[0]!r}"
            )
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
                f"any code; save plain arrays, one a key, with np.savez"
            ) from error
        raise
