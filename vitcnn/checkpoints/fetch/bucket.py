"""Weights in a bucket: a copy on this machine, with what is beside them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tempfile
import weakref

from vitcnn import storage
from vitcnn.checkpoints import sidecars
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.checkpoints.files import SHARDS, shards


def fetch(source: Source) -> Source:
    """Returns weights on this machine; the copy is deleted with the object that is returned.

    Args:
      source: weights in a bucket.

    Raises:
      FileNotFoundError: the bucket has no such object.
      OSError: it cannot be read.
    """
    content = storage.read(source.path)
    if content is None:
        raise FileNotFoundError(f"no checkpoint file {os.fspath(source.path)!r}")
    folder = tempfile.mkdtemp(prefix="vitcnn-")
    copy = pathlib.Path(folder, source.path.name)
    here = dataclasses.replace(source, path=copy, address=os.fspath(source.path))
    weakref.finalize(here, shutil.rmtree, folder, ignore_errors=True)
    copy.write_bytes(content)
    own = source.path.with_suffix(sidecars.OWN).name
    parts = set(shards.names(copy).values()) if copy.name.endswith(SHARDS) else ()
    for name in (own, *sidecars.PUBLISHED, *parts):
        if (content := storage.read(source.path.parent / name)) is not None:
            (copy.parent / name).write_bytes(content)
    return here
