"""Claim 2: it takes many lower CNN layers to match a few lower ViT layers (Fig. 2)."""

from __future__ import annotations

from vitcnn.verdicts import of_matches

NUMBER = "2"
STATEMENT = "It takes many more lower layers of a CNN to match the lower layers of a ViT."
SOURCE = "Fig. 2"
DEFINITION = (
    "relative depth (0 first layer, 1 last) of a layer of the CNN minus that of the ViT layer "
    "with the highest CKA to it, mean over the lower half of the CNN"
)
ANALYSIS = "cka"
KINDS = ("vit", "cnn")


def measure(results, vit, cnn):
    """Returns how much deeper the lower layers of the CNN lie than their matches in the ViT."""
    if "lower_match_lag" not in results[vit]:
        return None
    name = f"how much deeper lower {cnn} layers lie than their match in {vit} (part of the depth)"
    return of_matches(results[vit], "lower_match_lag", name, cnn, vit)
