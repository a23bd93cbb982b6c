"""Accuracy: top-1, top-5 and negative log-likelihood of a model's own head.

Before any similarity is believed the network must be right; this says whether it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray

TAPS = ()
ONE_MODEL = True
LABELS = True
HEAD = True
IMAGES = 1_000_000  # all there are: an accuracy is one over the whole set


def measure(group, config, given):
    """Returns counts of right answers and the summed negative log-likelihood of one group.

    Images without a label (-1, as in some test splits) are left out and counted.
    """
    (view,) = group.models.values()
    logits = view.logits.astype(jnp.float32)
    known = (group.label >= 0) & (group.label < logits.shape[1])
    label = jnp.where(known, group.label, 0)[:, None]
    right = jnp.take_along_axis(logits, label, axis=1)
    # Ties count against the model, so that a network with constant logits scores 0 rather than 1.
    other = jnp.arange(logits.shape[1]) != label
    rank = jnp.sum((logits >= right) & other, axis=1)
    counted = known & jnp.isfinite(right[:, 0])
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), label, 1)[:, 0]
    return {
        "images": jnp.sum(known),
        "unlabelled": jnp.sum(~known),
        "top1": jnp.sum((rank < 1) & counted),
        "top5": jnp.sum((rank < 5) & counted),
        "nll": jnp.sum(jnp.where(known, nll, 0)),
    }


def finalize(sums, config) -> xarray.Dataset:
    """Returns top-1 and top-5 accuracy and the mean negative log-likelihood in nats."""
    n = sums["images"] if sums["images"] else np.nan
    if sums["unlabelled"]:
        warnings.warn(
            f"{int(sums['unlabelled'])} images have no label and do not count", stacklevel=2
        )
    fraction = {"units": "1"}
    return xarray.Dataset(
        {
            "top1": ((), sums["top1"] / n, {"long_name": "top-1 accuracy", **fraction}),
            "top5": ((), sums["top5"] / n, {"long_name": "top-5 accuracy", **fraction}),
            "nll": ((), sums["nll"] / n, {"long_name": "negative log-likelihood", "units": "nat"}),
            "right": ((), np.int64(sums["top1"]), {"long_name": "images classified correctly"}),
            "images": ((), np.int64(sums["images"]), {"long_name": "labelled images"}),
        }
    )


def draw(results: Sequence[xarray.Dataset]):
    """Draws top-1 accuracy and negative log-likelihood of every result, with 95% intervals."""
    from vitcnn import figures

    shown = {"top1": ("top-1 accuracy (%)", 100), "nll": ("negative log-likelihood (nat)", 1)}
    return figures.intervals(results, shown)
