"""Accuracy and calibration of a model's own head.

Before any similarity is believed the network must be right; this says whether it is, and whether
it knows: images are put into bins of equal width by their confidence, the largest probability of
the softmax, (0, 1/bins], (1/bins, 2/bins], ... In a calibrated network the accuracy of each bin is
its mean confidence; the expected calibration error is the mean over images of the distance of the
two (Guo et al. 2017, eq. 3).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from vitcnn.analyses import ALL, Traits, figure

TAPS = ()
TRAITS = Traits(
    one_model=True,
    labels=True,
    head=True,
    images=ALL,  # an accuracy is over the whole set
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a config sets.

    Attributes:
      bins: number of bins of confidence; 15 as in Guo et al.
    """

    bins: int = 15


def measure(group, config, given):
    """Returns counts of right answers, summed losses, and sums by bin of confidence, of one group.

    Images without a label (-1, as in some test splits) are left out and counted. Those whose
    softmax is not a number count as wrong, lie in no bin, and make every loss NaN.

    Raises:
      ValueError: the field bins is below 1.
    """
    if config.bins < 1:
        raise ValueError(f"bins = {config.bins}: set the field to 1 or more, such as 15")
    (view,) = group.models.values()
    logits = view.logits.astype(jnp.float32)
    known = (group.label >= 0) & (group.label < logits.shape[1])
    label = jnp.where(known, group.label, 0)[:, None]
    right = jnp.take_along_axis(logits, label, axis=1)
    # Ties count against the model, so that a network with constant logits scores 0 rather than 1.
    other = jnp.arange(logits.shape[1]) != label
    rank = jnp.sum((logits >= right) & other, axis=1)
    # NaN is in no comparison, so one such logit would put no class before the label.
    counted = known & jnp.isfinite(jax.nn.logsumexp(logits, axis=1))
    top1 = (rank < 1) & counted
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), label, 1)[:, 0]
    probability = jax.nn.softmax(logits)
    brier = jnp.sum((probability - ~other) ** 2, axis=1)
    confidence = jnp.max(probability, axis=1)
    # An edge belongs to the bin below it; NaN is in no bin.
    edge = jnp.clip(jnp.ceil(confidence * config.bins), 1, config.bins)
    inside = (edge[:, None] == 1 + jnp.arange(config.bins)) & known[:, None]
    return {
        "images": jnp.sum(known),
        "unlabelled": jnp.sum(~known),
        "top1": jnp.sum(top1),
        "top5": jnp.sum((rank < 5) & counted),
        "nll": jnp.sum(jnp.where(known, nll, 0)),
        "brier": jnp.sum(jnp.where(known, brier, 0)),
        "bin_images": jnp.sum(inside, axis=0),
        "bin_right": jnp.sum(inside & top1[:, None], axis=0),
        "bin_confidence": jnp.sum(jnp.where(inside, confidence[:, None], 0), axis=0),
    }


def finalize(sums, config) -> xarray.Dataset:
    """Returns what is known of the head.

    Variables:
      top1, top5: accuracy; ties count against the model.
      nll: mean negative log-likelihood, nat.
      brier: mean over images of the squared error of the probabilities, summed over classes (0 to
        2; Brier 1950).
      ece: expected calibration error; NaN if the softmax of some image is not a number.
      right, images: images classified correctly, and all with a label.
      bin_accuracy, bin_confidence, bin_images [bin]: top-1 accuracy, mean confidence and number of
        the images in each bin of confidence; NaN in an empty one.
    Coordinate bin: middle of the bin.
    """
    n = sums["images"] if sums["images"] else np.nan
    if sums["unlabelled"]:
        warnings.warn(
            f"{int(sums['unlabelled'])} images have no label and do not count", stacklevel=2
        )
    inside = np.where(sums["bin_images"] > 0, sums["bin_images"], np.nan)
    accuracy, confidence = sums["bin_right"] / inside, sums["bin_confidence"] / inside
    gaps = np.abs(sums["bin_right"] - sums["bin_confidence"]).sum() / n
    everyone = sums["bin_images"].sum() == sums["images"]
    fraction = {"units": "1"}
    middle = (np.arange(config.bins) + 0.5) / config.bins
    bins = {"long_name": "middle of the bin of confidence", "units": "1"}
    return xarray.Dataset(
        {
            "top1": ((), sums["top1"] / n, {"long_name": "top-1 accuracy", **fraction}),
            "top5": ((), sums["top5"] / n, {"long_name": "top-5 accuracy", **fraction}),
            "nll": ((), sums["nll"] / n, {"long_name": "negative log-likelihood", "units": "nat"}),
            "brier": ((), sums["brier"] / n, {"long_name": "Brier score", **fraction}),
            "ece": (
                (),
                gaps if everyone else np.nan,
                {"long_name": "expected calibration error", **fraction},
            ),
            "right": ((), np.int64(sums["top1"]), {"long_name": "images classified correctly"}),
            "images": ((), np.int64(sums["images"]), {"long_name": "labelled images"}),
            "bin_accuracy": ("bin", accuracy, {"long_name": "top-1 accuracy", **fraction}),
            "bin_confidence": ("bin", confidence, {"long_name": "mean confidence", **fraction}),
            "bin_images": (
                "bin",
                sums["bin_images"].astype(np.int64),
                {"long_name": "images in the bin"},
            ),
        },
        {"bin": ("bin", middle, bins)},
    )


@figure(
    "Accuracy",
    "Each model's own head on the images: top-1 accuracy, negative log-likelihood and "
    "expected calibration error, with 95% intervals.",
)
def draw(results: Sequence[xarray.Dataset]):
    """Draws top-1 accuracy, log-likelihood and calibration error, with 95% intervals."""
    from vitcnn import figures

    shown = {"top1": ("top-1 accuracy (%)", 100), "nll": ("negative log-likelihood (nat)", 1)}
    if all("ece" in result for result in results):
        shown["ece"] = ("expected calibration error (%)", 100)
    return figures.intervals(results, shown)


@figure(
    "Calibration",
    "Accuracy of the images whose top-1 probability lies in a bin, against that "
    "probability. On the dashed line a network is as sure as it is right.",
)
def draw_calibration(results: Sequence[xarray.Dataset]):
    """Draws the accuracy of each bin against its confidence; None without bins."""
    from vitcnn import figures

    results = [result for result in results if "bin_accuracy" in result]
    if not results:
        return None
    panels, titles = [], []
    for result in results:
        filled = result.isel(bin=result.bin_images.values > 0)
        error = filled.bin_accuracy_standard_error
        panels.append({"bins of images": (filled.bin_confidence, filled.bin_accuracy, error)})
        ece = 100 * float(result.ece)
        titles.append("confidence" + (f" (calibration error {ece:.1f}%)" if ece >= 0 else ""))
    perfect = (((0, 1), (0, 1)), "calibrated")
    perfect = [perfect] * len(results)
    return figures.curves(results, panels, titles, "top-1 accuracy", perfect, share=True)
