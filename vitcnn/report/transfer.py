"""Which layer to take for transfer: the best layer by linear probes, and its gain over the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray

from vitcnn.numerics.statistics import Z
from vitcnn.results import datasets

FEATURES = ("class", "spatial", "all", "whole")  # vectors of the whole image


def best_layers(results: Mapping[str, xarray.Dataset]) -> list[dict[str, Any]]:
    """Returns the best layer of every network, for every vector that probes read.

    The layer is chosen on the images that chose the penalties, where there are such; its accuracy
    and its gain over the last layer are then those of images that chose nothing. Otherwise it is
    the best of all layers on the very images that it is scored on, and its gain is too great.

    Returns:
      Rows with the name of the `result`, `model`, `feature`, `layer` and its relative `depth`,
      `last` layer, `accuracy`, `gain` over the last layer, `low` and `high` end of its 95% interval
      over test images and draws of training images, and whether it was chosen on other images
      (`is_fair`).
    """
    rows = []
    for name, result in results.items():
        origin = datasets.provenance(result)
        if origin["analysis"] != "probe" or "gain" not in result:
            continue
        for feature in [f for f in FEATURES if f in result.feature.values]:
            of_feature = result.sel(feature=feature)
            of_feature = of_feature.isel(layer=np.isfinite(of_feature.accuracy.values))
            if not of_feature.sizes["layer"]:
                continue
            is_fair = "held_out_accuracy" in of_feature
            chosen_by = of_feature["held_out_accuracy" if is_fair else "accuracy"]
            best = of_feature.isel(layer=int(np.argmax(np.nan_to_num(chosen_by.values, nan=-1))))
            spread = float(best.gain_spread.fillna(0))
            half = Z * float(np.hypot(best.gain_standard_error, spread))
            gain = float(best.gain)
            rows.append(
                {
                    "result": name,
                    "model": next(iter(origin["models"])),
                    "feature": feature,
                    "layer": str(best.layer.values),
                    "depth": float(best.depth),
                    "last": str(of_feature.layer.values[-1]),
                    "accuracy": float(best.accuracy),
                    "gain": gain,
                    "low": gain - half,
                    "high": gain + half,
                    "is_fair": is_fair,
                }
            )
    return rows
