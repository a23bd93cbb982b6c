"""Storage: paths of this machine, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

PathLike = str | os.PathLike

# One slash, since pathlib makes gs:/bucket of gs://bucket; a single letter is a Windows drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path: PathLike, what: str) -> pathlib.Path:
    """Returns the path of a file or folder on this machine, with "~" as the user's home.

    Args:
      path: the path.
      what: what messages call it, such as "workdir".

    Raises:
      ValueError: the path is empty, or an address such as gs://bucket/run.
    """
    text = os.fspath(path)
    if not text.strip():
        raise ValueError(f"{what} is empty: give the path of a file or folder on this machine")
    if match := _SCHEME.match(text):
        raise ValueError(
            f"{what} {text!r} is an address ({match[0]}/...), and only paths on this machine are "
            "supported: copy or mount the bucket or server here, and give that path, such as "
            "runs/a or /mnt/data"
        )
    return pathlib.Path(text).expanduser()


def cache_folder() -> pathlib.Path:
    """Returns the cache: $VITCNN_CACHE, else vitcnn in $XDG_CACHE_HOME, else ~/.cache/vitcnn."""
    if folder := os.environ.get("VITCNN_CACHE"):
        return pathlib.Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "vitcnn"


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a path to write to, and then replaces `path` by that file in one step.

    If the block raises, `path` stays as it was. If the machine crashes, `path` holds the old or the
    new content, whole.

    Raises:
      ValueError: the path is an address such as gs://bucket/file.
    """
    path = local_path(path, "path")
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
