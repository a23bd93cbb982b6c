"""Fig. H.2: a Mixer is more like a ViT than like a CNN."""

from __future__ import annotations

from vitcnn.verdicts import Effect, difference, number_of

NUMBER = "Fig. H.2"
STATEMENT = "The layers of a Mixer are more like those of a ViT than like those of a CNN."
SOURCE = "Fig. H.2"
DEFINITION = "CKA, mean over all pairs of layers of two networks: with the ViT minus with the CNN"
ANALYSIS = "cka"
KINDS = ("mixer", "vit", "cnn")


def measure(results, mixer, vit, cnn):
    """Returns how much more like the ViT the Mixer is."""
    if "mean_cka" not in results[mixer]:
        return None
    with_each = [
        number_of(results[mixer], "mean_cka", model_x=mixer, model_y=other) for other in (vit, cnn)
    ]
    return Effect(*difference(*with_each), f"CKA of {mixer} with {vit} minus with {cnn}")
