"""Whether findings by CKA depend on CKA: its agreement with other measures of similarity."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray

from vitcnn.numerics.arrays import Names
from vitcnn.results import datasets
from vitcnn.similarity.maps import rank_correlation
from vitcnn.similarity.measure import LESS_ALIKE, measured


def agreement(results: Mapping[str, xarray.Dataset]) -> list[dict[str, Any]]:
    """Returns how far other measures order the pairs of layers as CKA does.

    There is one row for each measure in a Result of the analysis `similarity`: `result`, `measure`
    (its long name) and, for every model and pair of models, Spearman's correlation of the map of
    this measure with the map of unbiased linear CKA, over pairs of different layers; a distance
    counts with the opposite sign. CKA is taken from the Result itself or, if it has none and is of
    whole features, from a Result of the analysis `cka` of the same images in the same groups.
    """
    maps = [r for r in results.values() if datasets.provenance(r)["analysis"] == "cka"]
    rows = []
    for name, result in results.items():
        origin = datasets.provenance(result)
        if origin["analysis"] != "similarity":
            continue
        layers = {"layer_x": result.layer_x.values, "layer_y": result.layer_y.values}
        same = [m for m in maps if _comparable(m, origin, layers["layer_x"])]
        if "cka" not in result and not same:
            continue
        cka = result.cka if "cka" in result else same[0].cka.sel(layers)
        models = result.model_of_x.values
        pairs = [(m, m) for m in origin["models"]] + [*itertools.combinations(origin["models"], 2)]
        for measure in measured(result):
            if measure == "cka":
                continue
            attrs = result[measure].attrs
            sign = -1 if LESS_ALIKE.items() <= attrs.items() else 1
            row = {"result": name, "measure": attrs["long_name"]}
            for x, y in pairs:
                at = np.ix_(models == x, models == y)
                values = sign * result[measure].values[at], cka.values[at]
                label = x if x == y else f"{x} and {y}"
                row[label] = rank_correlation(*values, within=x == y)
            rows.append(row)
    return rows


def _comparable(cka: xarray.Dataset, origin: Mapping[str, Any], layers: Names) -> bool:
    """Returns whether a Result of `cka` is of the images and features of one of `similarity`.

    Args:
      cka: Result of `cka`.
      origin: provenance of the Result of `similarity`.
      layers: its layers.
    """
    other = datasets.provenance(cka)

    def measured_on(origin):
        fields = origin["fields"]
        images = origin["data"], origin["seed"], origin["group"], fields["images"]
        features = fields.get("tokens", "all"), fields.get("pool", "none")
        return *images, fields["repeats"], *features

    linear = other["fields"].get("kernel", "linear") == "linear"
    same = measured_on(origin) == measured_on(other)
    return same and linear and set(layers) <= set(cka.layer_x.values)
