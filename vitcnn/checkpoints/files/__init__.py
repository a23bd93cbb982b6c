"""Reads the arrays of a checkpoint file by key; what the keys mean is the matter of `formats`.

A file may hold several networks, the weights of a run and their moving average, or a student and
its teacher. `average` chooses between the two, and nothing else is ever chosen silently.
"""

from __future__ import annotations

import os
import re
import zipfile

import numpy as np

from vitcnn import storage
from vitcnn.checkpoints.files import h5, npz, orbax, safetensors, shards, state
from vitcnn.checkpoints.files.contents import Contents
from vitcnn.lookup import nearest

SHARDS = ".index.json"  # end of the name of a file that says which shard has which array

# What a kind of file begins with; a zip file is NumPy's or PyTorch's by what is in it.
_BEGINNINGS = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x80\x02": "PyTorch",  # a pickle, as before version 1.6
}
_SUFFIXES = {
    ".npz": "NumPy",
    ".safetensors": "safetensors",
    **dict.fromkeys((".pth", ".pt", ".th", ".bin", ".ckpt", ".tar", ".model"), "PyTorch"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
}
_LFS = b"version https://git-lfs.github.com/spec"
_NEEDED = 4096  # bytes that tell the kind of a file


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every array of a checkpoint by its key; see `open_file`, which also says more."""
    return dict(open_file(path).arrays)


def open_file(path: str | os.PathLike, average: bool = True) -> Contents:
    """Reads every array of a checkpoint by its key, and what else the file says.

    Nothing in the file is executed: pickled objects are refused.

    Args:
      path: a NumPy archive, a safetensors file, a PyTorch checkpoint or an HDF5 file of Keras,
        whatever its name; the index of such a file in shards, "model.safetensors.index.json"; or a
        step of a training run (checkpoints/500, or checkpoints/500.state of a run in a bucket).
      average: whether to read the moving average of the weights where the file has one.

    Raises:
      FileNotFoundError: there is no such file; the message lists the nearest names in its folder.
      ImportError: the file is PyTorch's, and torch is not installed.
      ValueError: the file is of another kind, is truncated, holds pickled objects or no arrays, or
        is a git-LFS pointer; or it holds several networks and nothing says which one is meant.
    """
    path = storage.as_path(path, "the path of a checkpoint")
    if storage.is_remote(path) and not path.name.endswith(SHARDS):
        with storage.copy_here(path) as copy:
            return open_file(copy, average)
    if path.is_dir() and path.name.isdigit():
        return Contents(orbax.read(path, average))
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"no checkpoint file {str(path)!r}: {nearest(path.name, sorted(siblings))}"
        )
    if path.suffix == state.SUFFIX:
        return Contents(state.read(path, average))
    if path.name.endswith(SHARDS):
        return shards.read(path, lambda shard: open_file(shard, average))
    kind = _kind(path)
    if kind == "NumPy":
        contents = Contents(npz.read(path))
    elif kind == "safetensors":
        contents = safetensors.read(path)
    elif kind == "HDF5":
        contents = Contents(h5.read(path))
    else:
        from vitcnn.checkpoints.files import torch

        contents = torch.read(path, average)
    if not contents.arrays:
        raise ValueError(f"{path.name} is not a checkpoint: it holds no arrays")
    return contents


def is_named_like_weights(name: str) -> bool:
    """Whether the end of a name is one that files of weights have."""
    return name.endswith((*_SUFFIXES, SHARDS))


def _kind(path: storage.Path) -> str:
    """Returns the kind of a file by its first bytes, else by the end of its name.

    Raises:
      ValueError: neither is that of a checkpoint.
    """
    with path.open("rb") as file:
        start = file.read(_NEEDED)
    if start.startswith(_LFS):
        raise ValueError(
            f"{path.name} is a git-LFS pointer instead of the weights; run `git lfs pull` in "
            "its repository, or download the file itself"
        )
    for beginning, kind in _BEGINNINGS.items():
        if start.startswith(beginning):
            return kind
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    # After safetensors, whose first bytes are the length of its header and may be any.
    if re.match(rb"\s*<[!?A-Za-z]", start):
        raise ValueError(
            f"{path.name} is a web page or XML instead of the weights: it begins with "
            f"{start.lstrip()[:16]!r}; download the file itself"
        )
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
                is_numpy = any(name.endswith(".npy") for name in archive.namelist())
        except zipfile.BadZipFile:
            is_torch = is_numpy = False  # truncated
        if is_torch or is_numpy:
            return "PyTorch" if is_torch else "NumPy"
    if start[257:262] == b"ustar":  # of PyTorch before version 0.1.10; its reader refuses others
        return "PyTorch"
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]  # its reader says what is wrong with it
    raise ValueError(
        f"{path.name} is no checkpoint: its first bytes are {start[:8]!r}, and weights are a NumPy "
        "archive, a safetensors file, a PyTorch checkpoint or an HDF5 file of Keras"
    )
