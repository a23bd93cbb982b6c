"""Claim 9: lower layers of a ViT see more of the image than those of a CNN (Fig. 6)."""

from __future__ import annotations

import math

from vitcnn.verdicts import Effect, difference, mean_of

NUMBER = "9"
STATEMENT = "Lower layers of a ViT see more of the image than lower layers of a CNN."
SOURCE = "Fig. 6"
DEFINITION = (
    "radius of the disc that holds the share `mass` of the mean |gradient| of the central "
    "position, mean over the lowest third of the layers, over the side of the image"
)
ANALYSIS = "receptive_field"
KINDS = ("vit", "cnn")


def measure(results, vit, cnn):
    """Returns the difference of the mean radii of the lowest third of the layers."""
    return Effect(
        *difference(_lower_radius(results[vit]), _lower_radius(results[cnn])),
        f"radius of half the receptive field, {vit} minus {cnn} (part of the image)",
        over="images",
    )


def _lower_radius(result):
    """Returns the mean radius as a part of the image's side, and its standard error."""
    rows = result.isel(tap=result.depth.values <= 1 / 3)
    side = math.sqrt(result.sizes["y"] * result.sizes["x"])
    return tuple(number / side for number in mean_of(rows, "radius"))
