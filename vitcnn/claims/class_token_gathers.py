"""Fig. 11, right: on top of a ViT with a class token, the positions serve probes worse than it."""

from __future__ import annotations

from vitcnn.verdicts import Effect, difference, number_of

NUMBER = "Fig. 11 right"
STATEMENT = (
    "In the last layers of a ViT with a class token, this token serves a linear probe better than "
    "the mean of the positions; in the middle layers it does not."
)
SOURCE = "Figs 11, F.3"
DEFINITION = (
    "accuracy of the probe of the class token minus that of the mean of positions: in the last "
    "layer, minus the same in the middle layer"
)
ANALYSIS = "probe"
KINDS = ("vit",)


def measure(results, vit):
    """Returns by how much the lead of the class token grows from the middle to the last layer."""
    result = results[vit]
    if not {"class", "spatial"} <= set(result.feature.values.tolist()):
        return None
    layers = result.sizes["layer"]
    leads = [
        difference(*(number_of(row, "accuracy", feature=f) for f in ("class", "spatial")))
        for row in (result.isel(layer=i) for i in (-1, (layers - 1) // 2))
    ]
    return Effect(
        *difference(*leads),
        f"how much the lead of the class token of {vit} grows in the upper half (accuracy)",
        f"In the last layer the class token leads by {leads[0][0]:+.3f}, in the middle by "
        f"{leads[1][0]:+.3f}.",
        "it takes probes of both in the last and in the middle layer",
    )
