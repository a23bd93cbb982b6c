"""Claim 8, second half: a larger ViT has stronger intermediate representations (Figs 13, F.2)."""

from __future__ import annotations

import numpy as np

from vitcnn.results import datasets
from vitcnn.verdicts import Effect, difference, mean_of, of_networks, over_seeds_effect

NUMBER = "8b"
STATEMENT = "The intermediate layers of a larger ViT serve linear probes better."
SOURCE = "Figs 13, F.2"
DEFINITION = (
    "accuracy of linear probes of the mean of all positions, mean over the middle third of the "
    "depth: the larger network minus the smaller; in the ablation with all of the images"
)
ABLATION = "data"
ANALYSIS = "probe"
KINDS = ("vit", "vit")


def measure_ablation(results):
    """Returns how much better the probes of the middle blocks of the larger network are."""
    if "probe" not in results:
        return None
    result = results["probe"]
    whole = result.isel(run=result.fraction.values == result.fraction.values.max())
    at = [list(whole.network.values).index(network) for network in ("large", "small")]
    (large, small), errors = (
        numbers.sel(feature="spatial").mean("layer").isel(run=at).transpose("run", "seed").values
        for numbers in of_networks(_middle(whole), "accuracy")
    )
    name = "accuracy of probes of middle blocks, large minus small"
    return over_seeds_effect(large - small, name, errors=np.hypot(*errors))


def measure(results, large, small):
    """Returns the same for two networks; None unless the first has more parameters."""
    sizes = [
        datasets.provenance(results[m])["models"].get(m, {}).get("parameters") or 0
        for m in (large, small)
    ]
    rows = [_middle(results[model]) for model in (large, small)]
    if not sizes[0] > sizes[1] > 0 or any("spatial" not in row.feature.values for row in rows):
        return None
    return Effect(
        *difference(*(mean_of(row.sel(feature="spatial"), "accuracy") for row in rows)),
        f"accuracy of probes of middle blocks, {large} minus {small}",
        "The networks may differ in more than their size, such as their images and training.",
    )


def _middle(result):
    """Returns the layers in the middle third of the depth."""
    depth = np.linspace(0, 1, result.sizes["layer"])
    return result.isel(layer=(depth >= 1 / 3) & (depth <= 2 / 3))
