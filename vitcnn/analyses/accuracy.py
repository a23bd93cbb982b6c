"""Accuracy: top-1, top-5 and negative log-likelihood of a model's own head.

Before any similarity is believed the network must be right; this says whether it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray

TAPS = ()
ONE_MODEL = True
LABELS = True
IMAGES = 1_000_000  # all there are: an accuracy is one over the whole set


def measure(group, config, given):
    """Returns counts of right answers and the summed negative log-likelihood of one group."""
    (view,) = group.models.values()
    logits = view.logits.astype(jnp.float32)
    right = jnp.take_along_axis(logits, group.label[:, None], axis=1)
    # Ties count against the model, so that a network with constant logits scores 0 rather than 1.
    other = jnp.arange(logits.shape[1]) != group.label[:, None]
    rank = jnp.sum((logits >= right) & other, axis=1)
    finite = jnp.isfinite(right[:, 0])
    return {
        "images": jnp.float32(len(logits)),
        "top1": jnp.sum((rank < 1) & finite),
        "top5": jnp.sum((rank < 5) & finite),
        "nll": -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(logits), group.label[:, None], 1)),
    }


def finalize(sums, config) -> xarray.Dataset:
    """Returns top-1 and top-5 accuracy and the mean negative log-likelihood in nats."""
    n = sums["images"]
    fraction = {"units": "1"}
    return xarray.Dataset(
        {
            "top1": ((), sums["top1"] / n, {"long_name": "top-1 accuracy", **fraction}),
            "top5": ((), sums["top5"] / n, {"long_name": "top-5 accuracy", **fraction}),
            "nll": ((), sums["nll"] / n, {"long_name": "negative log-likelihood", "units": "nat"}),
            "right": ((), np.int64(sums["top1"]), {"long_name": "images classified correctly"}),
            "images": ((), np.int64(n), {"long_name": "images"}),
        }
    )


def draw(results: Sequence[xarray.Dataset]):
    """Draws top-1 accuracy and negative log-likelihood of every result, with 95% intervals."""
    from vitcnn import figures

    shown = {"top1": ("top-1 accuracy (%)", 100), "nll": ("negative log-likelihood (nat)", 1)}
    return figures.intervals(results, shown)
