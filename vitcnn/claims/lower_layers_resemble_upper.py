"""Claim 1: lower and upper layers are more similar in a ViT than in a CNN (Fig. 1)."""

from __future__ import annotations

from vitcnn.claims import Effect, number_of

NUMBER = 1
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
    effect = number_of(results[vit], "lower_upper_difference", model_x=vit, model_y=cnn)
    return Effect(*effect, f"CKA of lower with upper layers, {vit} minus {cnn}")
