"""Claim 7: tokens on top of a ViT still resemble their own patch, unlike a CNN's (Figs 9, D.3)."""

from __future__ import annotations

from vitcnn.verdicts import Effect, difference, number_of

NUMBER = "7a"
STATEMENT = (
    "On top of a ViT with a class token a token still resembles its own patch most; the last "
    "layer of a CNN is blurred."
)
SOURCE = "Figs 9, D.3"
DEFINITION = "CKA of the token at a position with the patch at every position, last layer of each"
ANALYSIS = "localization"
KINDS = ("vit", "cnn")
FURTHER = ("decoding",)


def measure(results, vit, cnn, further):
    """Returns the difference of the shares of positions that match their own patch best.

    A ViT without a class token is not asked: the paper says that such a ViT loses the places.
    """
    if not results[vit].attrs.get("class_token", True):
        return None
    last = [results[model].isel(layer=-1) for model in (vit, cnn)]
    grids = [str(result.grid.values) for result in last]
    unequal = f"Grids differ ({' and '.join(grids)} cells), so chance does: set max_positions."
    notes = [unequal] if grids[0] != grids[1] else []
    return Effect(
        *difference(*(number_of(result, "own_rate") for result in last)),
        f"share of positions most similar to their own patch, {vit} minus {cnn}",
        " ".join(notes + _decoded(further.get("decoding", {}), (vit, cnn))),
    )


def _decoded(decoding, models):
    """Returns what can be read from the last tokens, where that was measured."""
    if not all(model in decoding for model in models):
        return []
    texts = []
    for target in ("position", "pixels"):
        rows = [decoding[model].isel(layer=-1) for model in models]
        if all(target in row.target.values for row in rows):
            r2 = [number_of(row, "r2", target=target) for row in rows]
            each = [f"{m} {v:.2f} \u00b1 {e:.2f}" for m, (v, e) in zip(models, r2, strict=True)]
            texts.append(f"{target}: {', '.join(each)}")
    if not texts:
        return []
    return [
        "CKA with a patch is not knowledge of the place: R\u00b2 of a linear map from the last "
        f"tokens (\u00b1 one standard error) to {'; to '.join(texts)}."
    ]
