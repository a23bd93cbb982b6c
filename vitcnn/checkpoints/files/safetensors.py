"""Reads and writes safetensors files: a length in 8 bytes, a JSON header, then the raw arrays.

https://github.com/huggingface/safetensors#format. The library's NumPy reader does not
support bfloat16, in which many weights are stored, so the format is read here.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitcnn.checkpoints import progress
from vitcnn.checkpoints.files.contents import Contents, json_object

_CAST = {
    "F64": "float64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_TYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"},
    **{"I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
    **{"F8_E4M3": "u1", "F8_E5M2": "u1"},
    "BOOL": "?",
}
_MAX_HEADER = 100_000_000  # bytes; the library has the same limit


def read(path: pathlib.Path) -> Contents:
    """Reads every tensor; floats of 16 and 8 bits become float32.

    Raises:
      ValueError: the file is truncated or has another format, or the type of an array is unknown.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise _damaged(path, f"{size} bytes cannot hold a header of {length}")
        try:
            header = json_object(file.read(length))
            entries = {key: value for key, value in header.items() if key != "__metadata__"}
            places = {
                key: (value["dtype"], tuple(value["shape"]), tuple(value["data_offsets"]))
                for key, value in entries.items()
            }
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(path, f"its header: {error}") from error
    data = 8 + length
    arrays = {}
    bar = progress.of_reading(path.name, size)
    for key, (kind, shape, offsets) in places.items():
        if not isinstance(kind, str) or len(offsets) != 2:
            raise _damaged(path, f"{key!r} has dtype {kind!r} and data_offsets {list(offsets)}")
        if kind not in _TYPES:
            raise ValueError(f"{path.name}: {key!r} has type {kind}, which vitcnn does not read")
        start, stop = offsets
        whole = all(
            type(n) is int and n >= 0 for n in (*shape, start, stop)
        )  # `type`, because True is an int
        if not whole or stop - start != math.prod(shape) * np.dtype(_TYPES[kind]).itemsize:
            raise _damaged(path, f"{key!r} of shape {list(shape)} has bytes {start} to {stop}")
        if data + stop > size:
            raise _damaged(path, f"{key!r} ends at byte {data + stop} of {size}")
        value = np.fromfile(path, _TYPES[kind], math.prod(shape), offset=data + start)
        bar.update(stop - start)
        if kind == "BF16":  # the upper half of a float32
            value = (value.astype(np.uint32) << 16).view(np.float32)
        elif kind in ("F8_E4M3", "F8_E5M2"):
            value = value.view(getattr(jnp, _CAST[kind])).astype(np.float32)
        elif kind == "F16":
            value = value.astype(np.float32)
        try:
            arrays[key] = value.reshape(shape)
        except (ValueError, OverflowError) as error:  # too many axes, or one too long beside a zero
            raise _damaged(path, f"{key!r} of shape {list(shape)}: {error}") from error
    bar.close()
    kinds = {kind for kind, _, _ in places.values()}
    return Contents(arrays, types=tuple(sorted(_CAST[kind] for kind in kinds & _CAST.keys())))


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes float32 arrays; the data begins at a multiple of 8 bytes, as the library has it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for key, value in arrays.items():
        stop = start + value.nbytes
        header[key] = {"dtype": "F32", "shape": value.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in arrays.values():
            file.write(np.ascontiguousarray(value, "<f4").data)


def _damaged(path: pathlib.Path, reason: str) -> ValueError:
    return ValueError(f"{path.name} is truncated, or is not a safetensors file: {reason}")
