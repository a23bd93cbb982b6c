"""An object store on this disk, behind gs://, for the tests: it has what buckets lack, and fails.

An object is written by one PUT, whole or not at all. A PUT fails at random: before anything is
stored, or after it, when only the answer is lost. Listings lag behind. There are no folders, and
nothing can be appended, renamed, or copied. `etils.epath` reads it as it reads Google's buckets,
through fsspec.
"""

import collections
import datetime
import io
import os
import pathlib
import random
import sys
import time
import urllib.parse
import uuid
from typing import ClassVar

import fsspec
from etils.epath import backend

from vitcnn import storage

FORBIDDEN = "secret"  # a bucket that refuses access


class Killed(BaseException):
    """Takes the place of SIGKILL in the middle of a PUT."""


class Store(fsspec.AbstractFileSystem):
    """The buckets are the folders of `root`, and each object is a file in one of them.

    Attributes:
      root: folder of the buckets.
      failures: share of the PUTs that fail.
      delay: seconds until a listing has a new object, and loses a deleted one.
      puts: number of PUTs so far.
      kill_at: number of the PUT in which the process dies, 0 for none.
      requests: (method, address without the bucket) -> number of requests so far; "LIST" lists.
    """

    protocol = ("gs", "gcs")
    root = pathlib.Path()
    failures, delay = 0.0, 0.0
    puts, failed, kill_at = 0, 0, 0
    chance = random.Random(0)
    requests: ClassVar = collections.Counter()

    @classmethod
    def _counted(cls, method, path):
        cls.requests[method, cls._strip_protocol(path).partition("/")[2]] += 1

    @classmethod
    def _bucket(cls, path):
        bucket, _, key = cls._strip_protocol(path).partition("/")
        if bucket == FORBIDDEN:
            raise OSError(f"Forbidden: gs://{bucket}/{key}\nanonymous callers have no access")
        if not (cls.root / bucket).is_dir():
            raise FileNotFoundError(f"the specified bucket does not exist: {bucket}")
        return cls.root / bucket, key

    @classmethod
    def _file(cls, path):
        folder, key = cls._bucket(path)
        return folder / urllib.parse.quote(key, safe="")

    def put(self, path, content):
        Store.puts += 1
        self._counted("PUT", path)
        fate = self.chance.random()
        if Store.kill_at and Store.puts >= Store.kill_at:
            raise Killed
        if fate < self.failures / 2:
            Store.failed += 1
            raise OSError("503 Service Unavailable")
        file = self._file(path)
        partial = file.parent.parent / f"{uuid.uuid4()}.partial"  # two threads may write
        partial.write_bytes(content)
        os.replace(partial, file)
        if fate < self.failures:
            Store.failed += 1
            raise ConnectionResetError("the answer was lost")

    def _open(self, path, mode="rb", **_):
        if mode == "rb":
            self._counted("GET", path)
            return io.BytesIO(self._file(path).read_bytes())
        assert mode == "wb", f"an object store cannot open an object with mode {mode!r}"
        return _Put(self, path)

    def _listed(self, folder):
        """Yields the names that a listing has."""
        now = time.time()
        for file in folder.iterdir():
            age = now - file.stat().st_mtime
            is_deleted = file.name.startswith("deleted=")
            if (age < self.delay) if is_deleted else (age >= self.delay):
                yield urllib.parse.unquote(file.name.removeprefix("deleted="))

    def info(self, path, **_):
        self._counted("HEAD", path)
        folder, key = self._bucket(path)
        name = self._strip_protocol(path)
        file = self._file(path)
        if key and file.is_file():
            status = file.stat()
            written = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
            return {"name": name, "type": "file", "size": status.st_size, "mtime": written}
        prefix = f"{key}/" if key else ""
        if any(other.startswith(prefix) for other in self._listed(folder)):
            return {"name": name, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **_):
        """Lists all objects below an address with one request, as Google's library does."""
        self._counted("LIST", path)
        folder, key = self._bucket(path)
        root = pathlib.PurePosixPath(folder.name, key)
        rows = {}
        for other in self._listed(folder):
            name = pathlib.PurePosixPath(folder.name, other)
            if root in name.parents:
                parents = [parent for parent in name.parents if root in parent.parents]
                rows |= {str(parent): {"type": "directory"} for parent in parents if withdirs}
                rows[str(name)] = {"type": "file"}
        depth = len(root.parts) + (maxdepth or 1000)
        rows = {k: {"name": k, **v} for k, v in sorted(rows.items()) if k.count("/") < depth}
        return rows if detail else list(rows)

    def ls(self, path, detail=True, **_):
        self._counted("LIST", path)
        folder, key = self._bucket(path)
        prefix, rows = f"{key}/" if key else "", {}
        for other in self._listed(folder):
            if other.startswith(prefix):
                head, _, rest = other.removeprefix(prefix).partition("/")
                name = f"{folder.name}/{prefix}{head}"
                size = self._file(name).stat().st_size if self._file(name).is_file() else 0
                rows[name] = {"name": name, "type": "directory" if rest else "file", "size": size}
        if not rows:
            raise FileNotFoundError(path)
        return list(rows.values()) if detail else list(rows)

    def rm_file(self, path):
        file = self._file(path)
        os.replace(file, file.with_name(f"deleted={file.name}"))
        os.utime(file.with_name(f"deleted={file.name}"))

    def rm(self, path, recursive=False, maxdepth=None):
        assert not recursive, "an object store has no folders"
        self.rm_file(path)

    def refused(self, *_, **__):
        raise AssertionError("an object store cannot do that")

    mkdir = makedirs = mv = rename = copy = cp_file = refused


class _Put(io.BytesIO):
    def __init__(self, store, path):
        super().__init__()
        self._store, self._path = store, path

    def close(self):
        if not self.closed:
            content = self.getvalue()
            super().close()
            self._store.put(self._path, content)


def install(root, failures=0.0, delay=0.0, kill_at=0):
    """Puts the store behind gs://, for this process.

    Args:
      root: folder of the buckets.
      failures, delay, kill_at: attributes of `Store`.
    """
    Store.root, Store.failures, Store.delay = pathlib.Path(root), failures, delay
    Store.puts, Store.failed, Store.kill_at = 0, 0, kill_at
    Store.chance = random.Random(kill_at)
    Store.requests = collections.Counter()
    storage._claimed.clear()
    for name in Store.protocol:
        fsspec.register_implementation(name, Store, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    storage._WAITS = (0.001,) * 12


def uninstall():
    """Takes the store away again."""

    for name in Store.protocol:
        sys.modules["fsspec.registry"]._registry.pop(name, None)
    backend.fsspec_backend._get_filesystem.cache_clear()
    storage._WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)


def contents(root, bucket="bucket"):
    """Returns name -> content of the objects of a bucket."""
    folder = pathlib.Path(root) / bucket
    return {
        urllib.parse.unquote(file.name): file.read_bytes()
        for file in sorted(folder.iterdir())
        if not file.name.startswith("deleted=")
    }
