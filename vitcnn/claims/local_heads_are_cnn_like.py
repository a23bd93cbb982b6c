"""Fig. 5: the more local the heads of the first block, the more they resemble low CNN layers."""

from __future__ import annotations

import math

from vitcnn.verdicts import Effect

NUMBER = "Fig. 5"
STATEMENT = (
    "The farther the heads of the first block of a ViT look, the less they resemble the low layers "
    "of a CNN."
)
SOURCE = "Fig. 5"
DEFINITION = (
    "minus Fisher's z of the rank correlation of attention distance and CKA over subsets of heads, "
    "mean over the low layers of the CNN; 0 for no relation, 1 for a correlation of -0.76"
)
ANALYSIS = "head_cka"
KINDS = ("vit", "cnn")


def measure(results, vit, cnn):
    """Returns how monotonely the likeness falls with the distance."""
    result = results[vit]
    of_cnn = [str(layer).startswith(f"{cnn}/") for layer in result.layer.values]
    if str(result.attrs["heads_of"]).partition("/")[0] != vit or not any(of_cnn):
        return None
    rows = result.isel(layer=of_cnn)
    z, error = (float(rows[n].mean()) for n in ("spearman_z", "spearman_z_standard_error"))
    return Effect(
        -z,
        error,
        f"how monotonely heads of {vit} become unlike {cnn} (Fisher's z)",
        f"The mean rank correlation is {math.tanh(z):.2f}. Subsets of heads overlap.",
        "it takes at least three subsets of heads, and layers that vary",
    )
