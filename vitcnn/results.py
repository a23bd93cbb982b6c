"""Results: xarray Datasets in netCDF that explain themselves, written atomically.

Layer names are coordinate values, units and long names are attributes, and one JSON attribute,
`provenance`, says what was measured: models, weights and their sha256, data, settings, versions.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import xarray

PathLike = str | os.PathLike


def stamp(dataset: xarray.Dataset, provenance: Mapping[str, Any]) -> xarray.Dataset:
    """Returns a result with its provenance as one JSON attribute."""
    return dataset.assign_attrs(provenance=json.dumps(provenance, sort_keys=True, default=str))


def save(dataset: xarray.Dataset, path: PathLike) -> None:
    """Writes a stamped result to a netCDF file, atomically."""
    with atomic(path) as partial:
        dataset.to_netcdf(partial, engine="h5netcdf")


def load(path: PathLike) -> xarray.Dataset:
    """Reads a result written by `save` into memory.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not a result.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no result {path}; a result is an <analysis>.nc in a workdir")
    try:
        dataset = xarray.load_dataset(path, engine="h5netcdf")
    except Exception as error:
        raise ValueError(f"{path} is not a readable netCDF file: {error}") from error
    if "provenance" not in dataset.attrs:
        raise ValueError(f"{path} has no `provenance` attribute: it is not a vitcnn result")
    return dataset


def from_bytes(content: bytes) -> xarray.Dataset:
    """Returns the result that is the content of a file written by `save`."""
    return xarray.load_dataset(io.BytesIO(content), engine="h5netcdf")


def load_all(workdir: PathLike) -> dict[str, xarray.Dataset]:
    """Reads every result of a workdir, by analysis name."""
    paths = sorted(pathlib.Path(workdir).glob("*.nc"))
    if not paths:
        raise FileNotFoundError(f"no results (*.nc) in {workdir}; run scripts/analyze.py first")
    return {path.stem: load(path) for path in paths}


def provenance(dataset: xarray.Dataset) -> dict[str, Any]:
    """Returns the provenance of a result."""
    return json.loads(dataset.attrs["provenance"])


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a path to write to; on success it replaces `path` in one step, else all stays."""
    path = pathlib.Path(path)
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


def log_line(path: PathLike, **values: Any) -> None:
    """Appends one line of JSON to a run log."""
    with open(path, "a") as file:
        file.write(json.dumps(values, default=float) + "\n")


def cut_log(path: PathLike, key: str, last: int) -> None:
    """Leaves out the lines of a run log whose `key` is above `last`, if there is such a log."""
    path = pathlib.Path(path)
    if path.is_file():
        lines = path.read_text().splitlines(keepends=True)
        with atomic(path) as partial:
            partial.write_text("".join(x for x in lines if json.loads(x)[key] <= last))


def claim_workdir(workdir: PathLike, run: Mapping[str, Any]) -> pathlib.Path:
    """Makes a workdir, or checks that an existing one belongs to the same run.

    Args:
      workdir: folder of the run.
      run: what decides the run's numbers, as far as it is known yet: any of the keys of run.json.

    Raises:
      ValueError: the folder holds a run of another config; the message shows each difference.
      OSError: the folder cannot be written.
    """
    workdir = pathlib.Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise OSError(f"workdir {workdir} cannot be written: {error.strerror}") from error
    path = workdir / "run.json"
    if path.is_file():
        before = json.loads(path.read_text())
        old = _leaves({key: before[key] for key in run if key in before})
        new = _leaves({key: run[key] for key in run if key in before})
        lines = [
            f"  {key}: {old.get(key, '(not set)')!r} there, {new.get(key, '(not set)')!r} here"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, ...) != new.get(key, ...)
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


def versions() -> dict[str, str]:
    """Returns the versions that a number may depend on, and the project's git revision."""
    found = {"python": platform.python_version()}
    for package in ("vitcnn", "jax", "jaxlib", "flax", "numpy", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found["revision"] = _revision()
    return found


@functools.cache
def _revision() -> str:
    here = pathlib.Path(__file__).parent
    run: Callable[..., Any] = functools.partial(
        subprocess.run, cwd=here, capture_output=True, text=True, timeout=10
    )
    try:
        if pathlib.Path(run(["git", "rev-parse", "--show-toplevel"]).stdout.strip()) != here.parent:
            return "unknown"  # an installed copy inside some other repository
        revision = run(["git", "rev-parse", "--verify", "--quiet", "HEAD"]).stdout.strip()
        dirty = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return revision + ("+changes" if dirty else "") if revision else "unknown"


def summary(name: str, dataset: xarray.Dataset) -> str:
    """Returns the numbers of a result in a few lines: scalars with errors, arrays by shape.

    What is NaN throughout, as all that is of a class token where there is none, is left out.
    """
    lines = [f"{name}:"]
    for key, variable in dataset.data_vars.items():
        if key.endswith("_standard_error") or bool(variable.isnull().all()):
            continue
        if variable.ndim:
            lines.append(f"  {key} [{' x '.join(map(str, variable.shape))}]")
        elif f"{key}_standard_error" in dataset:
            error = float(dataset[f"{key}_standard_error"])
            lines.append(f"  {key} = {float(variable):.4f} +- {error:.4f}")
        else:
            lines.append(f"  {key} = {variable.item()}")
    return "\n".join(lines)
