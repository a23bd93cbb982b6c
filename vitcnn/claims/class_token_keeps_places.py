"""Claim 7, second half: tokens keep their place with a class token, not with GAP (Fig. 10)."""

from __future__ import annotations

import numpy as np

from vitcnn.verdicts import Effect, difference, number_of, of_networks, over_seeds_effect

NUMBER = "7b"
STATEMENT = (
    "On top of a ViT with a class token, tokens are more like their own patch than on top of a ViT "
    "that averages its tokens."
)
SOURCE = "Figs 9, 10"
DEFINITION = (
    "CKA of the token of a position with its own patch, minus the mean over all patches, last "
    "layer: class token minus GAP; in the ablation, each at its own learning rate"
)
ABLATION = "pooling"
ANALYSIS = "localization"
KINDS = ("vit", "vit")


def measure_ablation(results):
    """Returns how much more local the tokens of the network with a class token are."""
    if "localization" not in results:
        return None
    (token, gap), errors = (
        numbers.sel(run=["baseline", "gap"]).transpose("run", "seed").values
        for numbers in of_networks(results["localization"], "last_own_contrast")
    )
    name = "contrast of a token with its own patch, token minus GAP"
    return over_seeds_effect(token - gap, name, errors=np.hypot(*errors))


def measure(results, token, gap):
    """Returns the same for two networks; None unless only the first has a class token."""
    has_class_token = [bool(results[m].attrs.get("class_token", True)) for m in (token, gap)]
    if has_class_token != [True, False]:
        return None
    last = [results[model].isel(layer=-1) for model in (token, gap)]
    grids = {str(result.grid.values) for result in last}
    return Effect(
        *difference(*(number_of(result, "own_contrast") for result in last)),
        f"contrast of a token with its own patch, {token} minus {gap}",
        "Grids differ, so chance does: set max_positions." if len(grids) > 1 else "",
    )
