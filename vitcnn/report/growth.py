"""Growth: what the evaluations of a training run measured, as figures over its steps."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray

from vitcnn import figures, storage
from vitcnn.results import datasets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATIONS = "evaluations"  # folder in the workdir of a training run
_CURVES = 12  # layers that a panel shows at most

Curves = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def has_evaluations(workdir: str | os.PathLike) -> bool:
    """Returns whether a workdir is that of a training run with evaluations."""
    return (storage.as_path(workdir, "workdir") / EVALUATIONS).is_dir()


def draw(workdir: str | os.PathLike) -> dict[str, Figure]:
    """Returns the figures of a training run by analysis, from its Results.

    There is one panel for each Result: the CKA of every layer with the same layer of the other
    network (the initial or the final one), the attention distance of every layer, mean over heads,
    and the accuracy. Results of other analyses are not drawn.

    Args:
      workdir: folder of the run.

    Raises:
      FileNotFoundError: the run has no evaluations.
    """
    folder = storage.as_path(workdir, "workdir") / EVALUATIONS
    drawn = collections.defaultdict(list)
    for evaluation in sorted(path for path in folder.glob("*") if path.is_dir()):
        for result in datasets.load_steps(evaluation).values():
            analysis = datasets.provenance(result)["analysis"]
            if analysis in _DRAW:
                drawn[analysis].append((result, _DRAW[analysis][0](result)))
    if not drawn:
        raise FileNotFoundError(f"{folder} has no results that are drawn over steps")
    return {
        analysis: figures.curves(
            *zip(*pairs, strict=True), "step", _DRAW[analysis][1], ordered=True
        )
        for analysis, pairs in drawn.items()
    }


def _cka(result: xarray.Dataset) -> Curves:
    """Returns the CKA of each layer with the same layer of the last network of a Result."""
    first, *_, other = dict.fromkeys(map(str, result.model_of_x.values))
    layers = [str(name) for name in result.layer_x.values if str(name).startswith(f"{first}/")]
    curves = {}
    for layer in layers:
        tap = layer.removeprefix(f"{first}/")
        at = {"layer_x": layer, "layer_y": f"{other}/{tap}"}
        curves[tap] = _curve(result.cka.sel(at), result.cka_standard_error.sel(at))
    return _spread(curves)


def _attention_distance(result: xarray.Dataset) -> Curves:
    """Returns the mean over heads of each layer; heads are measured on the same images."""
    mean = result.distance.mean("head")
    return _spread(
        {str(n): _curve(mean.sel(layer=n), mean.sel(layer=n) * np.nan) for n in mean.layer.values}
    )


def _accuracy(result: xarray.Dataset) -> Curves:
    return {"top-1": _curve(result.top1, result.top1_standard_error)}


def _curve(values: xarray.DataArray, errors: xarray.DataArray):
    return values.step.values, values.values, errors.values


def _spread(curves: Curves) -> Curves:
    """Returns curves from the first to the last, no more than a panel can show."""
    names = list(curves)
    chosen = np.linspace(0, len(names) - 1, min(_CURVES, len(names))).round().astype(int)
    return {names[i]: curves[names[i]] for i in chosen}


_DRAW = {  # analysis -> (its curves, title of the vertical axis)
    "cka": (_cka, "CKA with the same layer"),
    "attention_distance": (_attention_distance, "mean attention distance (px)"),
    "accuracy": (_accuracy, "accuracy"),
}


def write(workdir: str | os.PathLike, out: str | os.PathLike) -> list[str]:
    """Writes growth.<analysis>.png and .pdf into a folder, and returns the names of the files.

    Args:
      workdir: folder of a training run.
      out: folder to write into, which is created if it does not exist.
    """
    out = storage.as_path(out, "the folder of the figures")
    storage.make_folder(out)
    names = []
    for analysis, figure in draw(workdir).items():
        for extension in ("png", "pdf"):
            names.append(f"growth.{analysis}.{extension}")
            figures.save(figure, out / names[-1])
    return names
