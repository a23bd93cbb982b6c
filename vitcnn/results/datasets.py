"""Results: xarray Datasets in netCDF that explain themselves, written atomically.

Layer names are coordinate values, units and long names are attributes, and one JSON attribute,
`provenance`, says what was measured: models, weights and their sha256, data, settings, versions.
"""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray

from vitcnn.storage import PathLike, atomic

NO_ERROR = "standard_error"  # attribute of a variable that is no estimate, "none"


def coordinates(config) -> dict[str, Any]:
    """Returns the coordinates of [layer_x, layer_y], the layers of all models from input to output.

    They are "<model>/<tap>" (layer_x, layer_y), the model (model_of_x, model_of_y), and the depth
    in it, 0 at its first layer and 1 at its last (depth_x, depth_y).
    """
    layers = [f"{model}/{tap}" for model, tap in config.layers]
    owner = np.array([model for model, _ in config.layers])
    names = dict.fromkeys(owner)
    depth = np.concatenate([np.linspace(0, 1, (owner == name).sum()) for name in names])
    made: dict[str, Any] = {}
    for side in ("x", "y"):
        made[f"layer_{side}"] = layers
        made[f"model_of_{side}"] = (f"layer_{side}", owner)
        made[f"depth_{side}"] = (f"layer_{side}", depth)
    return made


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
