"""Fig. C.4: before the residual sum, later attention looks beyond its own patch."""

from __future__ import annotations

import numpy as np

from vitcnn.verdicts import Effect, difference, mean_of

NUMBER = "Fig. C.4"
STATEMENT = (
    "Before they are added to the skip connections, the attention branches of later ViT blocks "
    "look beyond their own patch, and the MLP branches do not."
)
SOURCE = "Fig. C.4"
DEFINITION = (
    "share of the mean |gradient| that lies outside of the cell of the position, mean over the "
    "upper half of the blocks: attention branches minus MLP branches"
)
ANALYSIS = "receptive_field"
KINDS = ("vit",)


def measure(results, vit):
    """Returns the difference of the shares; None for a Result of other taps than the branches."""
    result = results[vit]
    names = result.tap.values.astype(str)
    shares = []
    for part in ("attn", "mlp"):
        rows = result.isel(tap=result.branch.values & np.char.endswith(names, f"/{part}"))
        if not rows.sizes["tap"]:
            return None
        upper = slice(rows.sizes["tap"] // 2, None)
        shares.append(mean_of(rows.isel(tap=upper), "outside"))
    return Effect(
        *difference(*shares),
        f"share of the receptive field outside of the own patch, attention minus MLP of {vit}",
        over="images",
    )
