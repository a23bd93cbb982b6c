"""Weights at a URL: downloaded once, whole, and only if their SHA-256 is the expected one.

Interrupted downloads resume, which `pooch` cannot do, and which matters for files of gigabytes.
"""

from __future__ import annotations

import http.client
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request

from vitcnn.checkpoints import progress
from vitcnn.checkpoints.digest import sha256
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.storage import cache_folder

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without a byte


def fetch(url: str) -> Source:
    """Downloads a file into the cache, or finds it there.

    The cache is $VITCNN_CACHE, else vitcnn in $XDG_CACHE_HOME, else ~/.cache/vitcnn.

    Args:
      url: "https://...#sha256=<64 hexadecimal digits>".

    Raises:
      ValueError: the URL names no file or no SHA-256, or the file has another SHA-256.
      ConnectionError: the file cannot be downloaded.
    """
    address, _, fragment = url.partition("#")
    expected = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    repository = re.match(r"https://huggingface\.co/([\w.-]+/[\w.-]+)", address)
    if expected is None and repository is not None:
        raise ValueError(
            f"weights {url!r}: did you mean 'hf:{repository[1]}', the repository? A URL ends in "
            "#sha256=<64 hexadecimal digits>"
        )
    if expected is None:
        raise ValueError(
            f"weights {url!r}: a URL ends in #sha256=<64 hexadecimal digits>, so that it always "
            "means the same weights; `sha256sum <file>` prints the digits"
        )
    expected = expected[1].lower()
    name = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name
    if not name:
        raise ValueError(f"weights {url!r}: the URL names no file")
    path = cache_folder() / expected[:16] / name
    if path.is_file() and sha256(path) == expected:
        return Source(path, url, expected)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{name}.partial")
    try:
        _download(address, partial)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        size = partial.stat().st_size if partial.exists() else 0
        raise ConnectionError(
            f"{address} cannot be downloaded ({error}); run again to resume from {size} bytes, or "
            "download the file another way and give its path"
        ) from error
    if (actual := sha256(partial)) != expected:
        partial.unlink()
        raise ValueError(
            f"{address} is not the expected file: its SHA-256 is {actual}, expected {expected}"
        )
    partial.replace(path)
    return Source(path, url, expected)


def _download(address: str, partial: pathlib.Path) -> None:
    """Downloads the rest of a file.

    Raises:
      OSError: the server cannot be reached, refuses, or closes the connection too early.
    """
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "vitcnn", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # no byte is missing; the hash tells whether they are right
            error.close()
            return
        raise
    with response:
        resumed = response.status == 206  # else the server sends the file from its beginning
        length = response.headers.get("Content-Length")
        received, before = 0, start if resumed else 0
        total = None if length is None else before + int(length)
        name = partial.name.removesuffix(".partial")
        with (
            partial.open("ab" if resumed else "wb") as file,
            progress.of_bytes(name, total, before) as bar,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        if length is not None and received < int(length):
            raise OSError(f"cut off after {received} of {length} bytes")
