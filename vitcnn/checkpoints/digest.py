"""SHA-256 of weights, which pins the exact weights behind every result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from vitcnn.checkpoints.files import SHARDS, shards
from vitcnn.storage import Path


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the names and contents of several.

    Several files are all those in a folder, or weights in shards, which have an index.
    """
    if path.name.endswith(SHARDS):
        files = [path, *(path.parent / shard for shard in set(shards.names(path).values()))]
        return _of_several(path.parent, files)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return _of_several(path, [file for file in path.rglob("*") if file.is_file()])


def _of_several(folder: Path, files: Iterable[Path]) -> str:
    sha = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        sha.update(f"{file.relative_to(folder).as_posix()} {digest}\n".encode())
    return sha.hexdigest()
