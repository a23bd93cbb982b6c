"""Claim 8: more data makes the intermediate representations of a ViT stronger (Fig. 13)."""

from __future__ import annotations

import numpy as np

from vitcnn.verdicts import of_networks, over_seeds_effect

NUMBER = "8a"
STATEMENT = "With more training data, the intermediate layers of a ViT serve linear probes better."
SOURCE = "Fig. 13"
DEFINITION = (
    "accuracy of linear probes of the mean of all positions, mean over the middle third of the "
    "blocks: all of the images minus the smallest share, the larger network"
)
ABLATION = "data"


def measure_ablation(results):
    """Returns how much better the probes of the middle blocks are with all images."""
    if "probe" not in results:
        return None
    result = results["probe"]
    large = result.isel(run=result.network.values == "large").sortby("fraction")
    layers = large.sizes["layer"] - 1
    middle = slice(-(-layers // 3), 2 * layers // 3 + 1)
    (little, whole), errors = (
        numbers.sel(feature="spatial").isel(layer=middle, run=[0, -1]).mean("layer").values
        for numbers in of_networks(large.transpose("run", "seed", ...), "accuracy")
    )
    share = float(large.fraction[0])
    name = f"accuracy of probes of middle blocks, all minus {share:.0%} of the images"
    return over_seeds_effect(whole - little, name, errors=np.hypot(*errors))
