"""Storage: files are written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

PathLike = str | os.PathLike


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a path to write to, and then replaces `path` by that file in one step.

    If the block raises, `path` stays as it was. If the machine crashes, `path` holds the old or the
    new content, whole.
    """
    path = pathlib.Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    partial = pathlib.Path(name)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: PathLike, value: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(value, indent=2, default=str) + "\n")
