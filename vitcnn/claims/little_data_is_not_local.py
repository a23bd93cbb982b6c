"""Claim 4, second half: with little data, the lowest heads do not become local (Fig. 4)."""

from __future__ import annotations

import numpy as np

from vitcnn.verdicts import over_seeds_effect

NUMBER = "4b"
STATEMENT = "With little data, the lowest heads of a large ViT do not learn to attend locally."
SOURCE = "Fig. 4"
DEFINITION = (
    "mean attention distance of the lowest two layers, in units of uniform attention: with the "
    "smallest share of the images minus with all, the larger network"
)
ABLATION = "data"


def measure_ablation(results):
    """Returns how much farther the lowest heads look with the smallest share of the images."""
    if "attention_distance" not in results:
        return None
    result = results["attention_distance"]
    large = result.isel(run=result.network.values == "large").sortby("fraction")
    large = large.isel(run=[0, -1]).transpose("run", "seed", ...)
    little, whole = large.lowest_distance.values
    share = float(large.fraction[0])
    return over_seeds_effect(
        little - whole,
        f"distance of the lowest heads, {share:.0%} minus all of the images (uniform = 1)",
        errors=_errors(large),
    )


def _errors(result):
    """Returns the standard error over images of the difference, for each seed; None without any."""
    if "distance_standard_error" not in result:
        return None
    lowest = result.distance_standard_error.isel(layer=slice(0, 2)).mean(["layer", "head"])
    return np.hypot(*lowest.values) / np.min(result.attrs["uniform"])
