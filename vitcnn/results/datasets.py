"""Results: xarray Datasets in netCDF that explain themselves, written atomically.

Layer names are coordinate values, units and long names are attributes, and one JSON attribute,
`provenance`, says what was measured: models, weights and their sha256, data, settings, versions.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from jaxtyping import Float

from vitcnn import storage
from vitcnn.results import workdir as run_folder
from vitcnn.storage import PathLike

DEPTH_TITLE = "relative depth (first layer 0, last 1)"  # of an axis in figures


def variable(
    dims: str | Sequence[str],
    values: Any,
    long_name: str,
    units: str | None = "1",
    *,
    estimate: bool = True,
    **attrs: Any,
) -> tuple[str | Sequence[str], Any, dict[str, Any]]:
    """Returns a variable of a Result, as `xarray.Dataset` takes it.

    Args:
      dims: names of the dimensions of the values; () for a number.
      values: the numbers.
      long_name: what the variable is, for axes and captions.
      units: unit of the values; None, for counts and indices, writes no unit.
      estimate: whether the engine adds a standard error from the jackknife. False for a variable
        that is not an estimate, or whose error `finalize` itself has; the attribute
        `standard_error` is then "none".
      **attrs: further attributes.
    """
    named = {"long_name": long_name} | ({} if units is None else {"units": units}) | attrs
    return dims, values, named if estimate else named | {"standard_error": "none"}


def is_estimate(values: xarray.DataArray) -> bool:
    """Returns whether a variable of a Result can have a standard error; see `variable`."""
    return values.dtype.kind == "f" and values.attrs.get("standard_error") != "none"


def relative_depth(layers: int) -> Float[np.ndarray, " layers"]:
    """Returns the relative depth of each layer: 0 for the first layer, 1 for the last."""
    return np.linspace(0, 1, layers)


def coordinates(layers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the coordinates of [layer_x, layer_y], the layers of all models from input to output.

    A layer is called "<model>/<tap>" (layer_x, layer_y). It has a model (model_of_x, model_of_y)
    and a relative depth in that model (depth_x, depth_y).

    Args:
      layers: (model, tap) of every layer.
    """
    names = [f"{model}/{tap}" for model, tap in layers]
    owner = np.array([model for model, _ in layers])
    models = dict.fromkeys(owner)
    depth = np.concatenate([relative_depth(int((owner == model).sum())) for model in models])
    coords: dict[str, Any] = {}
    for side in ("x", "y"):
        coords[f"layer_{side}"] = names
        coords[f"model_of_{side}"] = (f"layer_{side}", owner)
        coords[f"depth_{side}"] = (f"layer_{side}", depth)
    return coords


def stamp(dataset: xarray.Dataset, provenance: Mapping[str, Any]) -> xarray.Dataset:
    """Returns a result with its provenance as one JSON attribute."""
    return dataset.assign_attrs(provenance=json.dumps(provenance, sort_keys=True, default=str))


def save(dataset: xarray.Dataset, path: PathLike) -> None:
    """Writes a stamped result to a netCDF file, atomically."""
    with storage.atomic(path) as partial:
        dataset.to_netcdf(partial, engine="h5netcdf")


def load(path: PathLike) -> xarray.Dataset:
    """Reads a result written by `save` into memory.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not a result.
    """
    path = storage.as_path(path, "the path of a result")
    content = storage.read(path)
    if content is None:
        raise FileNotFoundError(f"no result {path}; a result is an <analysis>.nc in a workdir")
    try:
        dataset = from_bytes(content)
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
    folder = storage.as_path(workdir, "workdir")
    # A bucket may list a Result late; the run.json of a measurement that has ended names them all.
    record = storage.read_json(folder / run_folder.RECORD) if storage.is_remote(folder) else None
    names = {path.stem for path in folder.glob("*.nc")} | set((record or {}).get("images", ()))
    if not names:
        raise FileNotFoundError(f"no results (*.nc) in {workdir}; run scripts/analyze.py first")
    return {name: load(folder / f"{name}.nc") for name in sorted(names)}


def load_steps(folder: PathLike) -> dict[str, xarray.Dataset]:
    """Reads the results of an evaluation of a training run, each with a first dimension `step`.

    Args:
      folder: evaluations/<name> in the workdir of the run.

    Returns:
      Name of the analysis -> the Results of all steps, with the provenance of the last.
    """
    folder = storage.as_path(folder, "folder")
    by_step: dict[int, dict[str, xarray.Dataset]] = {}
    for path in sorted(folder.glob("*/*.nc")):  # of a bucket, one listing
        if path.parent.name.isdigit():
            by_step.setdefault(int(path.parent.name), {})[path.stem] = load(path)
    if not by_step:
        raise FileNotFoundError(f"{folder} has no results of any step")
    loaded = [by_step[step] for step in sorted(by_step)]
    return {
        name: xarray.concat(
            [each[name] for each in loaded if name in each],
            "step",
            combine_attrs="override",
            data_vars="all",
            coords="minimal",
            compat="override",
        ).assign_attrs(results.attrs)
        for name, results in loaded[-1].items()
    }


def has_numbers(dataset: xarray.Dataset, name: str) -> bool:
    """Returns whether a Result has a variable with numbers in it, such as one of a class token."""
    return name in dataset and bool(np.isfinite(dataset[name]).any())


def provenance(dataset: xarray.Dataset) -> dict[str, Any]:
    """Returns the provenance of a result."""
    return json.loads(dataset.attrs["provenance"])


def summary(name: str, dataset: xarray.Dataset) -> str:
    """Returns the numbers of a result in a few lines: scalars with errors, arrays by shape.

    A variable that is NaN throughout is left out, such as those of the class token in a network
    without one.
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
