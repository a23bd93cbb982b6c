"""Fig. H.1: the layers of a Mixer fall into a small first block and a large second one."""

from __future__ import annotations

from vitcnn.verdicts import Effect, number_of

NUMBER = "Fig. H.1"
STATEMENT = (
    "The layers of a Mixer fall into two blocks, a small first and a large second one; layers of "
    "one block are alike, layers of different blocks are not."
)
SOURCE = "Fig. H.1"
DEFINITION = (
    "the lesser of two margins: the share of the variance of the CKA matrix that the best cut into "
    "two blocks explains, minus the share that the distance of the layers explains; and 1/2 minus "
    "the relative depth of the cut"
)
ANALYSIS = "cka"
KINDS = ("mixer",)


def measure(results, mixer):
    """Returns by which margin the matrix shows two blocks of unequal size."""
    if "two_blocks" not in results[mixer] or "model_x" not in results[mixer].two_blocks.dims:
        return None
    return Effect(
        *number_of(results[mixer], "two_blocks", model_x=mixer),
        f"how clearly the layers of {mixer} fall into a small and a large block",
        "Rests on the best cut, for which the jackknife interval is rough.",
        "it takes at least six live layers",
    )
