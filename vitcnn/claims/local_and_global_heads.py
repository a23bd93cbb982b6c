"""Claim 4: low ViT layers have local and global heads, high layers only global heads (Fig. 3)."""

from __future__ import annotations

from vitcnn.verdicts import Effect, number_of

NUMBER = "4a"
STATEMENT = (
    "The lowest layers of a ViT mix local and global heads, the highest have only global heads."
)
SOURCE = "Fig. 3"
DEFINITION = (
    "the least of three margins, where uniform attention has distance 1: 0.5 minus the most "
    "local head of the first two layers, their most global head minus 0.7, and the most local "
    "head of the last two layers minus 0.7"
)
ANALYSIS = "attention_distance"
KINDS = ("vit",)


def measure(results, vit):
    """Returns the margin by which the heads meet the claim, in units of uniform attention."""
    return Effect(
        *number_of(results[vit], "local_and_global"),
        f"how clearly the heads of {vit} are so, in units of uniform attention",
        undefined="it takes at least 4 blocks, and numbers that are finite",
    )
