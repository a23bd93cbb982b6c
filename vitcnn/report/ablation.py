"""Ablation: the Results of one ablation, or of several of one name, as figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from vitcnn import figures, storage
from vitcnn.numerics.statistics import Z
from vitcnn.results import datasets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ERROR = "_standard_error"


def is_ablation(results: Mapping[str, xarray.Dataset]) -> bool:
    """Returns whether Results are those of ablations."""
    return all(datasets.provenance(r)["analysis"] == "ablation" for r in results.values())


def draw(results: Mapping[str, xarray.Dataset]) -> dict[str, Figure]:
    """Returns the figures of ablations by name, with 95% intervals over seeds.

    - <analysis>.<variable>: of a single number, the mean of each run, and its difference from the
      run that it is compared with;
    - <analysis>.<variable>.<factor>: the difference against a factor that is a number, if the
      ablation has only one factor;
    - <analysis>.<variable>.layers: of a variable by layer, the mean of each run;
    - <analysis>.maps: of CKA within networks, the mean matrix of each run, the input at the lower
      left.

    Args:
      results: Results by name, as `vitcnn.report.read` returns them.
    """
    jobs: dict[str, list[xarray.Dataset]] = {}
    for result in results.values():
        jobs.setdefault(datasets.provenance(result)["name"], []).append(result)
    drawn = {}
    for job, group in jobs.items():
        for name in (str(n)[: -len("_mean")] for n in group[0].data_vars if n.endswith("_mean")):
            having = [result for result in group if datasets.has_numbers(result, f"{name}_mean")]
            if not having:
                continue
            dims, title = having[0][f"{name}_mean"].dims, _title(having[0], name)
            if dims == ("run",):
                drawn[f"{job}.{name}"] = _numbers(having, name, title)
                factor = _only_factor(having[0])
                if factor:
                    panels = [_against(result, name, factor) for result in having]
                    y_title = f"difference of the {title}"
                    zero = [(0.0, "baseline")] * len(having)
                    figure = figures.curves(having, panels, factor, y_title, zero)
                    drawn[f"{job}.{name}.{factor}"] = figure
            elif dims == ("run", "layer"):
                panels = [_by_layer(result, name) for result in having]
                drawn[f"{job}.{name}.layers"] = figures.curves(having, panels, "block", title)
            elif name == "cka" and dims == ("run", "layer_x", "layer_y"):
                matrices = [_matrices(result) for result in having]
                remark = "Means over seeds. Layers run from the lower left to the upper right."
                drawn[f"{job}.maps"] = figures.maps(
                    having, matrices, "CKA", limits=(0, 1), remark=remark
                )
    return drawn


def write(results: Mapping[str, xarray.Dataset], out: str | os.PathLike) -> list[str]:
    """Writes the figures of ablations as .png and .pdf, and returns the names of the files.

    Args:
      results: Results by name.
      out: folder to write into, which is created if it does not exist.
    """
    out = storage.as_path(out, "the folder of the figures")
    storage.make_folder(out)
    names = []
    for name, figure in draw(results).items():
        for extension in ("png", "pdf"):
            names.append(f"{name}.{extension}")
            figures.save(figure, out / names[-1])
    return names


def _title(result: xarray.Dataset, name: str) -> str:
    return str(result[name].attrs.get("long_name", name))


def _only_factor(result: xarray.Dataset) -> str:
    """Returns the name of the factor if there is one, and it is a number; else ""."""
    coordinates = [n for n, c in result.coords.items() if c.dims == ("run",) and n != "run"]
    factors = [str(n) for n in coordinates if n != "against"]
    one = len(factors) == 1 and result[factors[0]].dtype.kind == "f"
    return factors[0] if one else ""


def _against(result: xarray.Dataset, name: str, factor: str) -> dict:
    """Returns the curve of the differences over a factor, with intervals over seeds."""
    there = result.isel(run=np.isfinite(result[factor].values)).sortby(factor)
    values = there[f"{name}_difference"].values
    return {
        "run minus baseline": (there[factor].values, values, _error(there, f"{name}_difference"))
    }


def _by_layer(result: xarray.Dataset, name: str) -> dict:
    place = np.arange(result.sizes["layer"])
    curves = {}
    for run in result.run.values:
        at = result.sel(run=run)
        if np.isfinite(at[f"{name}_mean"].values).any():
            curves[str(run)] = (place, at[f"{name}_mean"].values, _error(at, f"{name}_mean"))
    return curves


def _matrices(result: xarray.Dataset) -> list[figures.Map]:
    """Returns the mean CKA of the layers of each run, the first layer at the lower left."""
    mean = result.cka_mean.transpose("run", "layer_y", "layer_x").values
    return [
        figures.Map(str(run), matrix[::-1])
        for run, matrix in zip(result.run.values, mean, strict=True)
        if np.isfinite(matrix).any()
    ]


def _numbers(results: Sequence[xarray.Dataset], name: str, title: str) -> Figure:
    """Returns the figure of one number: a line for each run, its mean and its difference."""
    lines = []
    for result in results:
        origin = datasets.provenance(result)
        for run in (str(r) for r in result.run.values if str(r) in origin["models"]):
            at, line = result.sel(run=run), {}
            for key in ("mean", "difference"):
                line[key] = ((), at[f"{name}_{key}"].values)
                line[key + _ERROR] = ((), _error(at, f"{name}_{key}"))
            of_run = json.dumps({**origin, "models": {run: origin["models"][run]}})
            lines.append(xarray.Dataset(line, attrs={"provenance": of_run}))
    titles = {"mean": (_short(title), 1)}
    # A baseline alone has no differences.
    if any(datasets.has_numbers(result, f"{name}_difference") for result in results):
        titles["difference"] = ("minus its pair", 1)
    seeds = ", ".join(dict.fromkeys(str(result.sizes["seed"]) for result in results))
    return figures.intervals(lines, titles, over=f"{seeds} seeds")


def _short(title: str) -> str:
    """Returns a title that fits below a narrow panel."""
    return title if len(title) < 30 else title[:28] + "\u2026"


def _error(result: xarray.Dataset, name: str) -> np.ndarray:
    """Returns the error whose 1.96-fold, which figures draw, is half of the interval over seeds."""
    return np.asarray(result[f"{name}_half_width"].values / Z)
