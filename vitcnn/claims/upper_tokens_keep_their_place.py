"""Claim 7: tokens on top of a ViT still resemble their own patch, unlike a CNN's (Figs 9, D.3)."""

from __future__ import annotations

from vitcnn.claims import Effect, difference, number_of

NUMBER = 7
STATEMENT = (
    "On top of a ViT with a class token a token still resembles its own patch most; the last "
    "layer of a CNN is blurred."
)
SOURCE = "Figs 9, D.3"
DEFINITION = "CKA of the token at a position with the patch at every position, last layer of each"
ANALYSIS = "localization"
KINDS = ("vit", "cnn")


def measure(results, vit, cnn):
    """Returns the difference of the shares of positions that match their own patch best.

    A ViT without a class token is not asked: the paper says that such a ViT loses the places.
    """
    if not results[vit].attrs.get("class_token", True):
        return None
    last = [results[model].isel(layer=-1) for model in (vit, cnn)]
    grids = [str(result.grid.values) for result in last]
    note = f"Grids differ ({' and '.join(grids)} cells), so chance does: set max_positions."
    return Effect(
        *difference(*(number_of(result, "own_rate") for result in last)),
        f"share of positions most similar to their own patch, {vit} minus {cnn}",
        note if grids[0] != grids[1] else "",
    )
