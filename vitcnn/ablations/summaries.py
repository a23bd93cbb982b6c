"""Summaries: which numbers of the Result of one network are compared with those of another.

Most variables of a Result are compared as they are. A few have no meaning between networks (head 2
of one network is not head 2 of another) and are replaced, and a few numbers are added that the
figures of the paper are about. Each function takes the Result of one network, whose names of layers
begin with "model/", "paired/" and "other/" where the analysis compares networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray

from vitcnn.results.datasets import variable

END = "_standard_error"
LOWEST = 2  # layers that count as the lowest, as in figures 3 and 4 of the paper


def summarised(analysis: str, result: xarray.Dataset) -> xarray.Dataset:
    """Returns the numbers of a Result that are compared between networks.

    Args:
      analysis: name of the analysis.
      result: its Result for one network.
    """
    return _SUMMARIES[analysis](result) if analysis in _SUMMARIES else result


def accuracy(result: xarray.Dataset) -> xarray.Dataset:
    """Returns the accuracy, the loss and the calibration error."""
    names = ("top1", "nll", "ece")
    return result[_with_errors(result, names)].drop_vars("bin", errors="ignore")


def _with_errors(result: xarray.Dataset, names: Sequence[str]) -> list[str]:
    """Returns the names of those variables that there are, and of their standard errors."""
    return [name + end for name in names for end in ("", END) if name + end in result]


def attention_distance(result: xarray.Dataset) -> xarray.Dataset:
    """Returns the distances with the heads of each layer sorted, and those of the lowest heads.

    Variables that are new:
      layer_distance [layer]: mean over heads, in units of uniform attention.
      lowest_distance: mean over the heads of the lowest two layers, in the same units.
      lowest_local: the most local head of the lowest two layers, in the same units.
    """
    heads = result.distance.values
    order = np.argsort(heads, axis=1)  # NaN, of heads that a layer lacks, comes last
    uniform = np.broadcast_to(result.attrs["uniform"], len(heads))[:, None]
    relative = np.take_along_axis(heads, order, 1) / uniform
    lowest = relative[:LOWEST]
    chosen = result.drop_vars(["distance_renormalised", "prefix_mass", "entropy"], errors="ignore")
    chosen = chosen.drop_vars([n for n in chosen if n.endswith(END) and _of_heads(n)])
    for name in ("distance", f"distance{END}"):
        if name in result:
            values = np.take_along_axis(result[name].values, order, 1)
            chosen[name] = (result[name].dims, values, result[name].attrs)
    unit = "mean attention distance, of uniform attention"
    return chosen.assign(
        layer_distance=variable("layer", np.nanmean(relative, 1), unit),
        lowest_distance=variable((), np.nanmean(lowest), f"{unit}, lowest {LOWEST} layers"),
        lowest_local=variable((), np.nanmin(lowest), f"{unit}, most local head of the lowest"),
    )


def _of_heads(name: str) -> bool:
    return name.startswith(("distance_renormalised", "prefix_mass", "entropy"))


def cka(result: xarray.Dataset) -> xarray.Dataset:
    """Returns the CKA of each layer with the same layer of the other network, or within one.

    Variables that are new:
      same_layer [layer]: of a layer with the same layer of the other network. Only of two networks.
      lower_upper: mean of the lowest with the highest third. Only of one network.
    The whole matrix stays, without what is read off it by an argmax.
    """
    names = list(dict.fromkeys(map(str, result.model_of_x.values)))
    matrix = result[_with_errors(result, ["cka"])]
    if len(names) == 1:
        whole = result[_with_errors(result, ["lower_upper"])]
        return matrix.merge(whole.isel(model_x=0, drop=True))
    first, second = names
    there = [str(name) for name in result.layer_y.values]
    taps = [str(n).partition("/")[2] for n in result.layer_x.values if _owner(n) == first]
    taps = [tap for tap in taps if f"{second}/{tap}" in there]
    at = {
        "layer_x": xarray.DataArray([f"{first}/{tap}" for tap in taps], dims="layer"),
        "layer_y": xarray.DataArray([f"{second}/{tap}" for tap in taps], dims="layer"),
    }
    pairs = matrix.sel(at).drop_vars(["layer_x", "layer_y"]).assign_coords(layer=taps)
    pairs = pairs.reset_coords(drop=True)
    pairs = pairs.rename({n: n.replace("cka", "same_layer") for n in pairs.data_vars})
    pairs["same_layer"].attrs["long_name"] = f"CKA with the same layer of {second!r}"
    return pairs


def _owner(layer: object) -> str:
    return str(layer).partition("/")[0]


def localization(result: xarray.Dataset) -> xarray.Dataset:
    """Returns the summaries of each layer, and those of the last one; not the maps.

    Variables that are new:
      last_own_rate, last_contrast, last_own_contrast: of the last layer.
    """
    chosen = result[[name for name in result.data_vars if result[name].dims == ("layer",)]]
    for name in ("own_rate", "contrast", "own_contrast"):
        for end in ("", END):
            if name + end in chosen:
                last = chosen[name + end].isel(layer=-1, drop=True)
                last.attrs = chosen[name + end].attrs
                chosen[f"last_{name}{end}"] = last
    return chosen


def probe(result: xarray.Dataset) -> xarray.Dataset:
    """Returns the accuracy of the probes of each layer, and that of the last layer.

    Variables that are new:
      last_<feature>: accuracy of the probe of this feature of the last layer.
    """
    chosen = result[_with_errors(result, ["accuracy", "token_accuracy"])]
    for feature in map(str, result.feature.values):
        for end in ("", END):
            if f"accuracy{end}" in chosen:
                last = chosen[f"accuracy{end}"].sel(feature=feature).isel(layer=-1)
                title = f"accuracy of linear probes of the last layer, {feature}"
                attrs = {"long_name": title, "units": "1"}
                chosen[f"last_{feature}{end}"] = ((), last.values, attrs)
    return chosen


_SUMMARIES: dict[str, Callable[[xarray.Dataset], xarray.Dataset]] = {
    "accuracy": accuracy,
    "attention_distance": attention_distance,
    "cka": cka,
    "localization": localization,
    "probe": probe,
}
