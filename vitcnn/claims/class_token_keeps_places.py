"""Claim 7, second half: tokens keep their place with a class token, not with GAP (Fig. 10)."""

from __future__ import annotations

from vitcnn.claims import over_seeds_effect

NUMBER = 7
STATEMENT = (
    "On top of a ViT with a class token, tokens are more like their own patch than on top of a ViT "
    "that averages its tokens."
)
SOURCE = "Figs 9, 10"
DEFINITION = (
    "CKA of the token of a position with its own patch, minus the mean over all patches, last "
    "layer: class token minus GAP, each at its own learning rate"
)
ABLATION = "pooling"


def measure(results):
    """Returns how much more local the tokens of the network with a class token are."""
    if "localization" not in results:
        return None
    contrast = results["localization"].last_own_contrast.transpose("run", "seed")
    token, gap = (contrast.sel(run=run).values for run in ("baseline", "gap"))
    return over_seeds_effect(token - gap, "contrast of a token with its own patch, token minus GAP")
