"""Claim 5: the class token takes the skip connections first, image positions later (Fig. 7)."""

from __future__ import annotations

from vitcnn.verdicts import Effect, number_of

NUMBER = "5"
STATEMENT = (
    "In the first half of a ViT the class token travels by the skip connections and the image "
    "positions by the branches; in the second half it is the other way round."
)
SOURCE = "Fig. 7"
DEFINITION = (
    "log2 of the skip ratio of the class token over that of the positions; the lesser of its "
    "mean in the first half and of minus its mean in the second"
)
ANALYSIS = "skip_ratio"
KINDS = ("vit",)


def measure(results, vit):
    """Returns how far the class token and the positions change places half-way."""
    return Effect(
        *number_of(results[vit], "phases"),
        f"how far the two change places half-way through {vit} (log2 of their skip ratios)",
        undefined="it takes a class token, and finite numbers of at least two branches",
    )
