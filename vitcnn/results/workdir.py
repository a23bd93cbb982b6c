"""The folder of a run: which run it belongs to, and its log."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vitcnn import parallel, storage
from vitcnn.storage import Path, PathLike

RECORD = "run.json"  # what a run measured, and where


def log_line(path: Path, **values: Any) -> None:
    """Appends one line of JSON to a run log."""
    log_lines(path, [values])


def log_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Appends lines of JSON to a run log."""
    storage.append(path, "".join(json.dumps(line, default=float) + "\n" for line in lines))


def cut_log(path: Path, key: str, last: int) -> None:
    """Removes the lines of a run log whose `key` is above `last`; without a log does nothing.

    A run that was killed while it wrote has left a last line that is torn; it is removed too.

    Raises:
      ValueError: another line is not JSON.
    """
    lines = read_log(path)
    if lines is not None:
        kept = [line for line in lines if line[key] <= last]
        with storage.atomic(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))


def read_log(path: Path) -> list[dict[str, Any]] | None:
    """Returns the lines of a run log, without a torn last line; None without a log.

    Raises:
      ValueError: another line is not JSON.
    """
    content = storage.read(path)
    if content is None:
        return None
    *lines, torn = content.decode().split("\n")
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


def claim_workdir(workdir: PathLike, run: Mapping[str, Any], neutral: Collection[str] = ()) -> Path:
    """Creates a workdir, or checks that an existing one belongs to the same run.

    Args:
      workdir: folder of the run.
      run: the keys of run.json that are known so far, which decide the run's numbers.
      neutral: entries that decide no number, such as "config.data.path"; they may differ.

    Raises:
      ValueError: the workdir is no path; or the folder holds a run of another config, and the
        message shows each difference.
      OSError: the folder cannot be written.
    """
    workdir = storage.as_path(workdir, "workdir")
    storage.claim_folder(workdir, "workdir")
    path = workdir / RECORD
    try:
        before = storage.read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}) and does not say which run the folder holds; choose "
            "another --workdir, or delete it"
        ) from None
    if before is not None:
        old = leaves({key: before[key] for key in run if key in before})
        new = leaves(run)
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


def check_shared(workdir: Path) -> None:
    """Raises ValueError if another host does not see what host 0 writes into a workdir."""
    process, processes = parallel.host()
    if processes == 1 or storage.is_remote(workdir):
        return
    token = parallel.agree(secrets.token_hex(8))
    path = workdir / f".shared.{token}"  # nobody has looked for it, so no disk remembers it absent
    if process == 0:
        storage.write_json(path, token)
    parallel.barrier("workdir written")
    sees = parallel.exchange("workdir read", storage.exists(path))
    if process == 0:
        storage.remove(path)
    if not all(sees):
        raise ValueError(
            f"host {sees.index(False)} does not see the files of host 0 in workdir {workdir}: "
            "training on several hosts needs a folder that they share, on a network disk or in a "
            "bucket, such as gs://bucket/run"
        )


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Returns the entries of a record by their dotted path, as JSON has them."""
    if isinstance(tree, Mapping) and tree:
        return {k: v for key in tree for k, v in leaves(tree[key], f"{path}.{key}").items()}
    return {path.lstrip("."): json.loads(json.dumps(tree, default=str))}
