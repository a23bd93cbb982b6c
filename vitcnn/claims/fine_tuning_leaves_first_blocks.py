"""Fig. G.1: fine-tuning leaves the first blocks of a ViT as they are."""

from __future__ import annotations

import numpy as np

from vitcnn.verdicts import of_networks, over_seeds_effect

NUMBER = "Fig. G.1"
STATEMENT = "Fine-tuning changes the first blocks of a ViT less than the last ones."
SOURCE = "Fig. G.1"
DEFINITION = (
    "CKA of a block before and after fine-tuning, mean over all targets: the first third of the "
    "blocks minus the last third"
)
ABLATION = "finetune"


def measure_ablation(results):
    """Returns how much better the first third of the blocks is kept than the last third."""
    if "cka_paired" not in results:
        return None
    result = results["cka_paired"]
    tuned = result.isel(run=result.run.values != "baseline").transpose("run", "seed", "layer", ...)
    kept, errors = (numbers.values for numbers in of_networks(tuned, "same_layer"))
    depth = np.linspace(0, 1, tuned.sizes["layer"])
    thirds = depth <= 1 / 3, depth >= 2 / 3
    first, last = (kept[..., third].mean(-1) for third in thirds)
    error = np.hypot(*(errors[..., third].mean(-1) for third in thirds))
    targets = tuned.sizes["run"]
    return over_seeds_effect(
        (first - last).mean(0),
        "CKA kept, first minus last third",
        f"The first third keeps a CKA of {np.nanmean(first):.3f}, over {targets} targets.",
        error.mean(0),
    )
