"""Claim 1: lower and upper layers are more similar in a ViT than in a CNN (Fig. 1)."""

from __future__ import annotations

from vitcnn.verdicts import Effect, difference, number_of

NUMBER = "1"
STATEMENT = "Lower and higher layers are more similar to each other in a ViT than in a CNN."
SOURCE = "Fig. 1"
DEFINITION = (
    "mean CKA of the lowest third of a model's layers with its highest third; the difference "
    "of the two means, from -1 to 1"
)
ANALYSIS = "cka"
KINDS = ("vit", "cnn")


def measure(results, vit, cnn):
    """Returns the difference of the two models' mean CKA of lower with upper layers."""
    name = f"CKA of lower with upper layers, {vit} minus {cnn}"
    if "lower_upper_difference" in results[vit]:
        at = {"model_x": vit, "model_y": cnn}
        return Effect(*number_of(results[vit], "lower_upper_difference", **at), name)
    if not all("lower_upper" in results[model] for model in (vit, cnn)):
        return None
    # Networks of an ablation, each measured by itself.
    return Effect(*difference(*(number_of(results[m], "lower_upper") for m in (vit, cnn))), name)
