"""Storage: the one room in which the text of a user becomes a path, here or in a bucket.

A path of this machine is a `pathlib.Path`; an address such as gs://bucket/run is an
`etils.epath.Path`, and the other rooms use what the two have in common.

An object store has no folders, cannot append to an object or rename one, and may list an object
late. But one PUT writes an object whole or not at all. So there are four rules:

- A file is written on this machine first, and put into the bucket whole (`atomic`). A PUT that
  fails is tried again, which does no harm because it writes the same bytes.
- A log is such an object too: `append` writes it again, whole. Who writes often collects lines.
- A run finds its files by their names. A listing may lag behind, so only those who read Results
  use one.
- What another library writes piece by piece is written here, and then put there
  (`folder_here`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from etils import epath

Path = pathlib.Path | epath.Path
PathLike = str | os.PathLike

# pathlib makes gs:/bucket of gs://bucket; a single letter is a Windows drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)([^/]*)")
_LIBRARIES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
_ROOM = 2**16  # bytes that a folder has to have room for, to tell a full disk before long work
REQUESTS = 32  # to a bucket at a time, for many small objects
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before a request to a bucket is tried again
# Another attempt would end like the first.
_LASTING = (FileNotFoundError, PermissionError, ImportError, NotImplementedError, TypeError)

_claimed: set[str] = set()  # folders of buckets into which this process has written

_Answer = TypeVar("_Answer")


def as_path(path: PathLike, what: str) -> Path:
    """Returns the path of a file or folder that a user names, with "~" as the user's home.

    Args:
      path: a path of this machine, or an address that etils.epath reads: gs://, s3://, az://,
        hf://, or a scheme that was registered there.
      what: what messages call it, such as "workdir".

    Raises:
      ValueError: the path is empty, or an address that names no bucket or has an unknown scheme.
      ImportError: the library that reads such addresses is not installed.
      OSError: the bucket refuses access or does not answer.
    """
    text = os.fspath(path)
    if not text.strip():
        raise ValueError(f"{what} is empty: give a path of this machine, or gs://bucket/folder")
    match = _SCHEME.match(text)
    if match is None:
        return pathlib.Path(text).expanduser()
    scheme, slashes, bucket = match.groups()
    if scheme == "file":
        raise ValueError(f"{what} {text!r}: give a path of this machine without file://")
    if slashes != "//":
        raise ValueError(
            f"{what} {text!r} is an address with one slash: give it as text, "
            f"{scheme}://{text[match.start(3) :]}, because pathlib.Path drops the other slash"
        )
    if not bucket:
        raise ValueError(f"{what} {text!r} names no bucket: expected {scheme}://bucket/folder")
    import fsspec  # which takes longer to import than all that a path of this machine needs

    # Other hosts write too, and fsspec would answer from the listing that it saw first.
    fsspec.config.conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
    try:
        address = epath.Path(text)
    except KeyError:
        raise ValueError(
            f"{what} {text!r} has the unknown scheme {scheme}://: expected "
            f"{', '.join(f'{known}://' for known in _LIBRARIES)} or a path of this machine"
        ) from None
    if not isinstance(path, epath.Path):  # those have come from here
        with contextlib.suppress(FileNotFoundError):
            _retried(address.stat, address, f"{what} {text} cannot be read")
    return address


def is_remote(path: Any) -> bool:
    """Returns whether a path is an address in a bucket."""
    return isinstance(path, epath.Path)


def absolute(path: Path) -> Path:
    """Returns a path that does not depend on the current folder."""
    return path if is_remote(path) else path.absolute()


def make_folder(path: Path) -> None:
    """Makes a folder and its parents, if they are not there; a bucket needs no folders."""
    if not is_remote(path):  # of a missing bucket, mkdir would make a new one
        path.mkdir(parents=True, exist_ok=True)


def claim_folder(path: Path, what: str) -> None:
    """Makes a folder, and writes into it once, so that a full disk is an error before long work.

    Args:
      path: the folder.
      what: what messages call it, such as "workdir".

    Raises:
      OSError: the folder cannot be written.
    """
    if is_remote(path):
        if str(path) in _claimed:
            return
        probe = path / f".writable.{os.getpid()}.{random.getrandbits(32):08x}"
        put(probe, b"", f"{what} {path} cannot be written")
        with contextlib.suppress(OSError):  # who may write may still not delete
            remove(probe)
        _claimed.add(str(path))
        return
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{what} {path} is a file; give the path of a folder")
    try:
        make_folder(path)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except OSError as error:
        raise OSError(f"{what} {path} cannot be written: {error.strerror}") from error


def cache_folder() -> pathlib.Path:
    """Returns the cache: $VITCNN_CACHE, else vitcnn in $XDG_CACHE_HOME, else ~/.cache/vitcnn."""
    if folder := os.environ.get("VITCNN_CACHE"):
        return pathlib.Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "vitcnn"


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a path of this machine to write to, and then replaces `path` by that file in one step.

    If the block raises, `path` stays as it was. If the machine crashes, `path` holds the old or the
    new content, whole.
    """
    path = as_path(path, "path")
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="vitcnn-") as folder:
            partial = pathlib.Path(folder, path.name)
            yield partial
            put(path, partial.read_bytes())
        return
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


def put(path: epath.Path, content: bytes, failure: str = "") -> None:
    """Writes an object of a bucket with one PUT.

    Args:
      path: the address.
      content: all of it; a file that is fed in pieces would leave a part if one of them failed.
      failure: how a message about a failure begins.

    Raises:
      OSError: the object was not written, after several attempts.
    """

    def attempt():
        path.write_bytes(content)
        if (there := path.stat().length) != len(content):
            raise OSError(f"{there} of {len(content)} bytes arrived")

    _retried(attempt, path, failure or f"{path} cannot be written")


def read(path: Path) -> bytes | None:
    """Returns the content of a file, None if there is no such file.

    Raises:
      OSError: the file is there, or may be, and cannot be read.
    """
    try:
        if is_remote(path):
            return _retried(path.read_bytes, path, f"{path} cannot be read")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


@contextlib.contextmanager
def copy_here(path: Path) -> Iterator[pathlib.Path]:
    """Yields a copy of an object on this machine, which is deleted at the end; or the file itself.

    Raises:
      FileNotFoundError: there is no such object.
      OSError: the object cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    content = read(path)
    if content is None:
        raise FileNotFoundError(f"there is no {path}")
    with tempfile.TemporaryDirectory(prefix="vitcnn-") as folder:
        copy = pathlib.Path(folder, path.name)
        copy.write_bytes(content)
        yield copy


def exists(path: Path) -> bool:
    """Returns whether there is such a file or folder.

    Raises:
      OSError: the bucket does not answer; its libraries would say that there is nothing.
    """
    if not is_remote(path):
        return path.exists()
    with contextlib.suppress(FileNotFoundError):
        _retried(path.stat, path, f"{path} cannot be read")
        return True
    return False


def size(path: Path) -> int:
    """Returns the number of bytes of a file."""
    return path.stat().length if is_remote(path) else path.stat().st_size


def remove(path: Path) -> None:
    """Deletes a file, if it is there.

    Raises:
      OSError: the file was not deleted.
    """
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        _retried(path.unlink, path, f"{path} cannot be deleted")


def read_json(path: Path) -> Any:
    """Returns the value of a JSON file, None if there is no such file.

    Raises:
      ValueError: the file is not JSON.
    """
    content = read(path)
    return None if content is None else json.loads(content)


def write_json(path: PathLike, value: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(value, indent=2, default=str) + "\n")


def append(path: Path, text: str) -> None:
    """Appends text to a file; an object of a bucket is written again, whole."""
    if is_remote(path):
        put(path, (read(path) or b"") + text.encode())
        return
    with open(path, "a") as file:
        file.write(text)


@contextlib.contextmanager
def folder_here(path: Path) -> Iterator[pathlib.Path]:
    """Yields a folder of this machine in which a library may write as it likes.

    It is the folder itself, or one whose files are put into the bucket at the end.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vitcnn-") as folder:
        yield pathlib.Path(folder)
        upload(pathlib.Path(folder), path)


def upload(folder: pathlib.Path, path: epath.Path) -> None:
    """Puts every file of a folder of this machine into a bucket, under the same names."""
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        put(path / file.relative_to(folder).as_posix(), file.read_bytes())


def _retried(request: Callable[[], _Answer], path: epath.Path, failure: str) -> _Answer:
    """Returns the answer to a request, which is tried again if it fails for a while.

    Args:
      request: sends the request.
      path: the address.
      failure: how a message about a failure begins.

    Raises:
      FileNotFoundError: there is no such object or bucket.
      ImportError: the library that reads such addresses is not installed.
      PermissionError: access is refused.
      OSError: the last attempt failed too.
    """
    for wait in (*_WAITS, None):
        try:
            return request()
        except Exception as error:  # each library has errors of its own
            refused = isinstance(error, PermissionError) or _refused(error)
            if wait is None or refused or isinstance(error, _LASTING):
                raise _explained(error, path, failure, refused) from error
        time.sleep(wait * random.uniform(0.5, 1.5))  # the hosts should not come back together
    raise AssertionError("the last attempt returns or raises")


def _refused(error: Exception) -> bool:
    """Returns whether an error of a library says that access is refused."""
    code = str(getattr(error, "code", ""))
    return code in ("401", "403") or str(error).startswith(("Forbidden", "Unauthorized"))


def _explained(error: Exception, path: epath.Path, failure: str, refused: bool) -> Exception:
    """Returns an error in words."""
    scheme, _, bucket = _SCHEME.match(os.fspath(path)).groups()
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, FileNotFoundError):
        # Nothing has to be there for a PUT but the bucket.
        return FileNotFoundError(f"{failure}: the bucket {bucket!r} does not exist ({reason})")
    if isinstance(error, ImportError):
        name = "vitcnn[gcs]" if scheme == "gs" else _LIBRARIES.get(scheme, f"fsspec[{scheme}]")
        return ImportError(f'{failure}: {scheme}:// needs a library; pip install "{name}"')
    if refused:
        login = "gcloud auth application-default login" if scheme == "gs" else "its library's login"
        return PermissionError(
            f"{failure}: the bucket {bucket!r} refuses access ({reason}); log in with {login}, or "
            "ask its owner for the right to read and write objects"
        )
    return OSError(f"{failure}: {type(error).__name__}: {reason}")
