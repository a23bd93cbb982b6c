"""Reads the arrays of a TorchScript archive, as OpenAI has published CLIP in, and no code of it.

An archive is a zip file with the program as text under "code/", which is not read, and the network
as a pickle, "data.pkl", with the numbers under "data/". Of what a pickle may call, only what makes
tensors and objects with attributes is understood, by the classes below; all else is refused.
"""

from __future__ import annotations

import collections
import math
import pathlib
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

_TYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def is_archive(path: pathlib.Path) -> bool:
    """Whether a file is a TorchScript archive; other files of torch have no "constants.pkl"."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    return {"data.pkl", "constants.pkl"} <= names


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns every tensor by the names of the attributes that lead to it, "visual.conv1.weight".

    Floats narrower than 32 bits widen.

    Raises:
      ValueError: the archive is damaged, or its pickle calls something else than a tensor needs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            with archive.open(f"{root}/data.pkl") as file:
                network = _Unpickler(file, archive, root).load()
    except (pickle.UnpicklingError, zipfile.BadZipFile, KeyError, EOFError, IndexError) as error:
        raise ValueError(f"{path.name} is no readable TorchScript archive: {error}") from error
    return dict(_arrays(network, ""))


class _Object:
    """What an archive holds as an object of one of its own classes: attributes and nothing else."""


class _Unpickler(pickle.Unpickler):
    """Makes objects and tensors."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a pickle calls by this name, which is never what the archive means by it."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _Object
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _TYPES:
            return np.dtype(_TYPES[name])
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which is no part of a tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Returns the numbers of a storage: ("storage", type, key, device, count)."""
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r}, which is no storage of numbers")
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Returns a tensor of these strides, in elements, of a storage.

    Raises:
      pickle.UnpicklingError: the storage is too short.
    """
    shape, strides = tuple(shape), tuple(strides)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and not 0 <= offset <= last < len(storage):
        raise pickle.UnpicklingError(f"{len(storage)} numbers are too few for a tensor {shape}")
    steps = tuple(stride * storage.itemsize for stride in strides)
    array = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
    narrow = storage.dtype in (np.float16, jnp.bfloat16)
    return array.astype(np.float32) if narrow else array


def _arrays(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays in an object by name."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, _Object):
        for attribute, part in vars(value).items():
            yield from _arrays(part, f"{name}.{attribute}" if name else attribute)
