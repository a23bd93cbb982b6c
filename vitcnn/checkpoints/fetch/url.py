"""Weights at a URL: downloaded once, whole, and only if their SHA-256 is the expected one."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without a byte


def fetch(url: str) -> tuple[pathlib.Path, str]:
    """Downloads a file into the cache, or finds it there.

    The cache is $VITCNN_CACHE, else vitcnn in $XDG_CACHE_HOME, else ~/.cache/vitcnn. A download
    that was cut off goes on where it stopped.

    Args:
      url: "https://...#sha256=<64 hexadecimal digits>".

    Returns:
      (path, url).

    Raises:
      ValueError: the URL has no SHA-256, or the file has another.
      ConnectionError: it cannot be downloaded.
    """
    address, _, fragment = url.partition("#")
    expected = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if expected is None:
        raise ValueError(
            f"weights {url!r}: a URL ends in #sha256=<64 hexadecimal digits>, so that the same "
            f"weights come each time; `sha256sum` of the file prints them"
        )
    expected = expected[1].lower()
    name = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name
    if not name:
        raise ValueError(f"weights {url!r}: the URL names no file")
    path = _cache() / expected[:16] / name
    if path.is_file() and _sha256(path) == expected:
        return path, url
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{name}.partial")
    try:
        _download(address, partial)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise ConnectionError(
            f"{address} cannot be downloaded ({error}); run again to go on from "
            f"{partial.stat().st_size if partial.exists() else 0} bytes, or download it otherwise "
            f"and give its path"
        ) from error
    if (got := _sha256(partial)) != expected:
        partial.unlink()
        raise ValueError(
            f"{address} is not the expected file: its SHA-256 is {got}, expected {expected}"
        )
    partial.replace(path)
    return path, url


def _download(address: str, partial: pathlib.Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "vitcnn", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is missing; the hash says whether it is right
            error.close()
            return
        raise
    with response:
        goes_on = response.status == 206
        length = response.headers.get("Content-Length")
        got = 0
        with partial.open("ab" if goes_on else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                got += len(chunk)
        if length is not None and got < int(length):
            raise OSError(f"cut off after {got} of {length} bytes")


def _cache() -> pathlib.Path:
    if folder := os.environ.get("VITCNN_CACHE"):
        return pathlib.Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "vitcnn"


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
