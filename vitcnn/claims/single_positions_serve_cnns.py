"""Fig. 11, left: single positions on top of a ViT with a class token serve probes badly."""

from __future__ import annotations

from vitcnn.verdicts import Effect, difference, number_of

NUMBER = "Fig. 11 left"
STATEMENT = (
    "A single position on top of a CNN serves a linear probe better than one on top of a ViT with "
    "a class token."
)
SOURCE = "Figs 11, D.4"
DEFINITION = "accuracy of the probe of a single position, mean over positions, last layer"
ANALYSIS = "probe"
KINDS = ("cnn", "vit")


def measure(results, cnn, vit):
    """Returns the difference of the accuracies; None for a ViT without a class token."""
    features = {model: results[model].feature.values for model in (cnn, vit)}
    if "class" not in features[vit] or any("tokens" not in f for f in features.values()):
        return None
    rows = [results[model].sel(feature="tokens") for model in (cnn, vit)]
    last = [row.dropna("layer", subset=["accuracy"]).isel(layer=-1) for row in rows]
    return Effect(
        *difference(*(number_of(row, "accuracy") for row in last)),
        f"accuracy of probes of single positions, last layer, {cnn} minus {vit}",
    )
