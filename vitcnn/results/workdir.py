"""The folder of a run: which run it belongs to, and its log."""

from __future__ import annotations

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Collection, Mapping
from typing import Any

from vitcnn.storage import PathLike, atomic, local_path

RECORD = "run.json"  # what a run measured, and where
ROOM = 2**16  # bytes that a workdir has to have room for, to tell a full disk before long work


def log_line(path: PathLike, **values: Any) -> None:
    """Appends one line of JSON to a run log."""
    with open(path, "a") as file:
        file.write(json.dumps(values, default=float) + "\n")


def cut_log(path: PathLike, key: str, last: int) -> None:
    """Removes the lines of a run log whose `key` is above `last`; without a log does nothing.

    A run that was killed while it wrote has left a last line that is torn; it is removed too.

    Raises:
      ValueError: another line is not JSON.
    """
    path = pathlib.Path(path)
    if path.is_file():
        kept = [line for line in read_log(path) if line[key] <= last]
        with atomic(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))


def read_log(path: PathLike) -> list[dict[str, Any]]:
    """Returns the lines of a run log, without a torn last line.

    Raises:
      ValueError: another line is not JSON.
    """
    *lines, torn = pathlib.Path(path).read_text().split("\n")
    with contextlib.suppress(ValueError):  # whole, but for the end of the line
        json.loads(torn)
        lines.append(torn)
    read = []
    for i, line in enumerate(lines):
        try:
            read.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {i + 1} is not JSON: {error}") from None
    return read


def claim_workdir(
    workdir: PathLike, run: Mapping[str, Any], neutral: Collection[str] = ()
) -> pathlib.Path:
    """Creates a workdir, or checks that an existing one belongs to the same run.

    Args:
      workdir: folder of the run.
      run: the keys of run.json that are known so far, which decide the run's numbers.
      neutral: entries that decide no number, such as "config.data.path"; they may differ.

    Raises:
      ValueError: the workdir is no path of this machine; or the folder holds a run of another
        config, and the message shows each difference.
      OSError: the folder cannot be written.
    """
    workdir = local_path(workdir, "workdir")
    if workdir.exists() and not workdir.is_dir():
        raise NotADirectoryError(f"workdir {workdir} is a file; give the path of a folder")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise OSError(f"workdir {workdir} cannot be written: {error.strerror}") from error
    path = workdir / RECORD
    if path.is_file():
        try:
            before = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged ({error}) and does not say which run the folder holds; choose "
                "another --workdir, or delete it"
            ) from None
        old = _leaves({key: before[key] for key in run if key in before})
        new = _leaves(run)
        lines = [
            f"  {key}: {old.get(key, '(not set)')!r} there, {new.get(key, '(not set)')!r} here"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, ...) != new.get(key, ...) and key not in neutral
        ]
        if lines:
            raise ValueError(
                f"workdir {workdir} holds another run; choose another --workdir, "
                "or delete it. The differences:\n" + "\n".join(lines)
            )
    return workdir


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {k: v for key in tree for k, v in _leaves(tree[key], f"{path}.{key}").items()}
    return {path.lstrip("."): json.loads(json.dumps(tree, default=str))}
