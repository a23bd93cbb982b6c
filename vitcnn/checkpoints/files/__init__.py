"""Reads the arrays of a checkpoint file by key; what the keys mean is the matter of `formats`.

A file may hold several networks, the weights of a run and their moving average, or a student and
its teacher. `average` chooses between the two, and nothing else is ever chosen silently.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from vitcnn.checkpoints.files import h5, npz, orbax, safetensors
from vitcnn.checkpoints.files.contents import Contents
from vitcnn.lookup import nearest

_TORCH = (".pth", ".pt", ".th", ".bin")
_KERAS = (".h5", ".hdf5")
SUFFIXES = (".npz", ".safetensors", *_TORCH, *_KERAS)
_LFS = b"version https://git-lfs.github.com/spec"


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every array of a checkpoint by its key; see `open_file`, which also says more."""
    return dict(open_file(path).arrays)


def open_file(path: str | os.PathLike, average: bool = True) -> Contents:
    """Reads every array of a checkpoint by its key, and what else the file says.

    Nothing in the file is executed: pickled objects are refused.

    Args:
      path: a NumPy archive (.npz), a safetensors file, a PyTorch checkpoint (.pth, .pt, .th, .bin),
        an HDF5 file of Keras (.h5, .hdf5), or a step of a training run (checkpoints/500).
      average: whether to read the moving average of the weights where the file has one.

    Raises:
      FileNotFoundError: there is no such file; the message lists the nearest names in its folder.
      ImportError: the file is PyTorch's, and torch is not installed.
      ValueError: the file has another suffix, is truncated, holds pickled objects or no arrays, or
        is a git-LFS pointer; or it holds several networks and nothing says which one is meant.
    """
    path = pathlib.Path(path)
    if path.is_dir() and path.name.isdigit():
        return Contents(orbax.read(path, average))
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"no checkpoint file {str(path)!r}: {nearest(path.name, sorted(siblings))}"
        )
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path.name}: a checkpoint ends in .npz (NumPy), .safetensors, .pth, .pt, .th or "
            ".bin (PyTorch), or .h5 or .hdf5 (Keras)"
        )
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise ValueError(
                f"{path.name} is a git-LFS pointer instead of the weights; run `git lfs pull` in "
                "its repository, or download the file itself"
            )
    if path.suffix == ".npz":
        contents = Contents(npz.read(path))
    elif path.suffix == ".safetensors":
        contents = Contents(safetensors.read(path))
    elif path.suffix in _KERAS:
        contents = Contents(h5.read(path))
    else:
        from vitcnn.checkpoints.files import torch

        contents = torch.read(path, average)
    if not contents.arrays:
        raise ValueError(f"{path.name} is not a checkpoint: it holds no arrays")
    return contents
