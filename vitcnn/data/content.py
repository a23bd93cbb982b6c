"""Content: digests of the images that a run reads, so that a Result never outlives its images.

A digest is of the bytes and the label, never of a path or a time: a copy has the same digests.
Digests of files are cached, because a second run should not read every file twice. The key of a
file in the cache is what changes whenever the file is written: its inode, size, and times.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from vitcnn import storage

SETTLED = 2.0  # seconds; a file younger than this may change again within one tick of its clock


def digests(source: Any, indices: Sequence[int]) -> list[str]:
    """Returns a digest of each image of `indices` and its label.

    A source without the method `digests` is read image by image.
    """
    if hasattr(source, "digests"):
        return source.digests(indices)
    bar = tqdm(indices, "checking the content", unit="image", delay=2)
    examples = (source[int(i)] for i in bar)
    return [of_pixels(example["image"], example["label"]) for example in examples]


def of_pixels(image: np.ndarray, label: int) -> str:
    """Returns the digest of an image in memory."""
    image = np.ascontiguousarray(image)
    start = f"{image.dtype} {image.shape} {int(label)} ".encode()
    return hashlib.blake2b(start + image.tobytes(), digest_size=16).hexdigest()


def of_bytes(content: bytes, label: int) -> str:
    """Returns the digest of an encoded image."""
    return hashlib.blake2b(f"{label} ".encode() + content, digest_size=16).hexdigest()


def of_files(root: storage.Path, files: Sequence[str]) -> list[str]:
    """Returns the digest of the content of each file of a folder, reading those not in the cache.

    Args:
      root: the folder.
      files: paths in the folder.
    """
    is_remote = storage.is_remote(root)
    place = str(root if is_remote else root.resolve())
    key = hashlib.sha256(place.encode()).hexdigest()[:32]
    cache_file = storage.cache_folder() / "digests" / f"{key}.json"
    cache: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError):  # absent, or damaged: it is only a cache
        cache = json.loads(cache_file.read_text())

    def read(file: str) -> tuple[str, list[int], bool]:
        path = root / file
        status = path.stat()
        if is_remote:
            changed, state = status.mtime, [0, status.length, status.mtime, status.mtime]
        else:
            # Nobody can set the time of the last change of the inode: it betrays every rewriting.
            state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            changed = max(status.st_mtime, status.st_ctime)
        known = cache.get(file)
        if isinstance(known, list) and known[1:] == state:
            return known[0], state, True
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        # Not every bucket says when an object was written; it then says 0.
        settled = changed > 0 and time.time() - changed > SETTLED
        return digest.hexdigest(), state, settled

    threads = storage.REQUESTS if is_remote else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        rows = pool.map(read, files)
        bar = tqdm(rows, "checking the content", len(files), unit="image", delay=2)
        rows = dict(zip(files, bar, strict=True))
    fresh = {file: [digest, *state] for file, (digest, state, keep) in rows.items() if keep}
    if any(cache.get(file) != row for file, row in fresh.items()):
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            with storage.atomic(cache_file) as partial:
                partial.write_text(json.dumps(cache | fresh))
    return [rows[file][0] for file in files]


def describe(source: Any) -> dict[str, Any]:
    """Returns what a Result says of its images: their provenance and the names of their classes."""
    names = getattr(source, "class_names", None)
    return {**source.provenance, **({"class_names": list(names)} if names else {})}
