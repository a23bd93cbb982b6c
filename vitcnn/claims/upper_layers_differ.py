"""Claim 3: the highest layers of a ViT are like no layer of a CNN (Fig. 2).

The paper adds that they likely work on the class token; this effect does not test that.
"""

from __future__ import annotations

from vitcnn.verdicts import of_matches

NUMBER = "3"
STATEMENT = "The highest layers of a ViT are less like any layer of a CNN than its other layers."
SOURCE = "Fig. 2"
DEFINITION = (
    "CKA of a ViT layer with the layer of the CNN most similar to it, mean over a third of the "
    "depth; the lesser of the first and the middle third, minus the last, from -1 to 1"
)
ANALYSIS = "cka"
KINDS = ("vit", "cnn")


def measure(results, vit, cnn):
    """Returns by how much the best matches of the ViT's last third fall below the lower ones."""
    if "upper_match_drop" not in results[vit]:
        return None
    name = f"CKA of {vit} layers with their best match in {cnn}, lower thirds minus last"
    return of_matches(results[vit], "upper_match_drop", name, vit, cnn)
