"""Whether what CKA says of layers hangs on CKA: its agreement with other measures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from vitcnn import similarity
from vitcnn.results import datasets


def agreement(results: Mapping[str, xarray.Dataset]) -> list[dict[str, Any]]:
    """Returns how far other measures order the pairs of layers as CKA does.

    One row a measure of a Result of the analysis `similarity`: `result`, `measure` (its long name)
    and, for every model and pair of models, Spearman's correlation of its map with that of unbiased
    linear CKA, over pairs of different layers. CKA is that of the Result itself or, where it has
    none, of a Result of the analysis `cka` of the same images and groups of them, if the Result
    itself is of whole features.
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
        for measure in [m for m in similarity.measures.MEASURES if m in result and m != "cka"]:
            row = {"result": name, "measure": result[measure].attrs["long_name"]}
            for x, y in pairs:
                at = np.ix_(models == x, models == y)
                maps_of = result[measure].values[at], cka.values[at]
                label = x if x == y else f"{x} and {y}"
                row[label] = similarity.rsa.rank_correlation(*maps_of, within=x == y)
            rows.append(row)
    return rows


def _comparable(cka: xarray.Dataset, origin: Mapping[str, Any], layers: Sequence[str]) -> bool:
    """Returns whether a Result of `cka` is of the images and features of one of `similarity`."""
    other = datasets.provenance(cka)

    def measured(known):
        fields = known["fields"]
        drawn = known["data"], known["seed"], known["group"], fields["images"], fields["repeats"]
        return *drawn, fields.get("tokens", "all"), fields.get("pool", "none")

    linear = other["fields"].get("kernel", "linear") == "linear"
    return measured(origin) == measured(other) and linear and set(layers) <= set(cka.layer_x.values)
