"""Claim 6: a ViT without the skip connections of a middle block is much worse (Fig. 8)."""

from __future__ import annotations

import numpy as np

from vitcnn.config import BASELINE
from vitcnn.results import datasets
from vitcnn.verdicts import of_networks, over_seeds_effect

NUMBER = "6"
STATEMENT = "A ViT that is trained without the skip connections of a middle block is worse."
SOURCE = "Fig. 8"
DEFINITION = (
    "top-1 accuracy of the baseline minus that without the skip connections of one block, of the "
    "same seed, mean over the middle third of the blocks; the paper saw 4 points"
)
ABLATION = "skips"


def measure_ablation(results):
    """Returns how much accuracy the middle blocks lose without their skip connections."""
    if "accuracy" not in results:
        return None
    result = results["accuracy"]
    if datasets.provenance(result)["models"][BASELINE]["kind"] != "vit":
        return None
    top1, errors = of_networks(result.transpose("run", "seed", ...), "top1")
    lost = top1.sel(run=BASELINE) - top1
    of_lost = np.hypot(errors.sel(run=BASELINE), errors)
    block = result.block.values
    blocks = np.nanmax(block) + 1
    middle = (block >= (blocks - 1) / 3) & (block <= 2 * (blocks - 1) / 3)
    if not middle.any():
        return None
    return over_seeds_effect(
        lost.transpose("run", "seed").values[middle].mean(0),
        f"accuracy lost without the skips of one of the blocks {block[middle].astype(int)}",
        errors=of_lost.transpose("run", "seed").values[middle].mean(0),
    )
