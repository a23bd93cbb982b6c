"""Accuracy and calibration of a model's own head.

A network has to classify correctly before any similarity of its layers is believed. This analysis
says whether it does, and whether its confidence can be trusted. The confidence of an image is the
largest probability of the softmax. Images are put into bins of equal width by their confidence,
(0, 1/bins], (1/bins, 2/bins], ... In a calibrated network the accuracy of each bin equals its mean
confidence; the expected calibration error is the distance between the two, averaged over images
(Guo et al. 2017, eq. 3).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from vitcnn.analyses import ALL, Config, Group, Traits, figure
from vitcnn.numerics.arrays import Array
from vitcnn.results.datasets import variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ()
TRAITS = Traits(
    one_model=True,
    labels=True,
    head=True,
    images=ALL,  # an accuracy is over the whole set
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      bins: number of bins of confidence; 15 as in Guo et al.
    """

    bins: int = 15


def measure(group: Group, config: Config, given: Mapping) -> dict[str, Array]:
    """Returns counts of correct answers, summed losses and sums by bin of confidence of one group.

    Images without a label (-1, as in some test splits) are left out, and their number is kept.
    Images whose softmax is not a number count as wrong, lie in no bin, and make every loss NaN.

    Raises:
      ValueError: the field bins is below 1.
    """
    if config.bins < 1:
        raise ValueError(f"bins = {config.bins}: set the field to 1 or more, such as 15")
    (view,) = group.models.values()
    logits = view.logits.astype(jnp.float32)
    labelled = (group.label >= 0) & (group.label < logits.shape[1])
    label = jnp.where(labelled, group.label, 0)[:, None]
    label_logit = jnp.take_along_axis(logits, label, axis=1)
    # Ties count against the model, so that a network with constant logits scores 0 rather than 1.
    other = jnp.arange(logits.shape[1]) != label
    rank = jnp.sum((logits >= label_logit) & other, axis=1)
    # Comparisons with NaN are false, so a NaN logit would rank no class before the label.
    counted = labelled & jnp.isfinite(jax.nn.logsumexp(logits, axis=1))
    top1 = (rank < 1) & counted
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), label, 1)[:, 0]
    probability = jax.nn.softmax(logits)
    brier = jnp.sum((probability - ~other) ** 2, axis=1)
    confidence = jnp.max(probability, axis=1)
    # A confidence on an edge belongs to the bin below it; NaN belongs to no bin.
    edge = jnp.clip(jnp.ceil(confidence * config.bins), 1, config.bins)
    inside = (edge[:, None] == 1 + jnp.arange(config.bins)) & labelled[:, None]
    return {
        "images": jnp.sum(labelled),
        "unlabelled": jnp.sum(~labelled),
        "top1": jnp.sum(top1),
        "top5": jnp.sum((rank < 5) & counted),
        "nll": jnp.sum(jnp.where(labelled, nll, 0)),
        "brier": jnp.sum(jnp.where(labelled, brier, 0)),
        "bin_images": jnp.sum(inside, axis=0),
        "bin_right": jnp.sum(inside & top1[:, None], axis=0),
        "bin_confidence": jnp.sum(jnp.where(inside, confidence[:, None], 0), axis=0),
    }


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the accuracy, the losses and the calibration of the head.

    Variables:
      top1, top5: accuracy; ties count against the model.
      nll: mean negative log-likelihood, nat.
      brier: mean over images of the squared error of the probabilities, summed over classes (0 to
        2; Brier 1950).
      ece: expected calibration error; NaN if the softmax of some image is not a number.
      right, images: number of images classified correctly, and of all images with a label.
      bin_accuracy, bin_confidence, bin_images [bin]: top-1 accuracy, mean confidence and number of
        the images in each bin of confidence; the first two are NaN in an empty bin.
    Coordinate bin: middle of the bin.
    """
    n = sums["images"] if sums["images"] else np.nan
    if sums["unlabelled"]:
        warnings.warn(
            f"{int(sums['unlabelled'])} images have no label and do not count", stacklevel=2
        )
    bin_images = np.where(sums["bin_images"] > 0, sums["bin_images"], np.nan)
    bin_accuracy = sums["bin_right"] / bin_images
    bin_confidence = sums["bin_confidence"] / bin_images
    gaps = np.abs(sums["bin_right"] - sums["bin_confidence"]).sum() / n
    all_in_bins = sums["bin_images"].sum() == sums["images"]
    ece = gaps if all_in_bins else np.nan
    right, images = np.int64(sums["top1"]), np.int64(sums["images"])
    counts = sums["bin_images"].astype(np.int64)
    middle = (np.arange(config.bins) + 0.5) / config.bins
    return xarray.Dataset(
        {
            "top1": variable((), sums["top1"] / n, "top-1 accuracy"),
            "top5": variable((), sums["top5"] / n, "top-5 accuracy"),
            "nll": variable((), sums["nll"] / n, "negative log-likelihood", "nat"),
            "brier": variable((), sums["brier"] / n, "Brier score"),
            "ece": variable((), ece, "expected calibration error"),
            "right": variable((), right, "images classified correctly", None),
            "images": variable((), images, "labelled images", None),
            "bin_accuracy": variable("bin", bin_accuracy, "top-1 accuracy"),
            "bin_confidence": variable("bin", bin_confidence, "mean confidence"),
            "bin_images": variable("bin", counts, "images in the bin", None),
        },
        {"bin": variable("bin", middle, "middle of the bin of confidence")},
    )


@figure(
    "Accuracy",
    "Each model's own head on the images: top-1 accuracy, negative log-likelihood and "
    "expected calibration error, with 95% intervals.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws top-1 accuracy, log-likelihood and calibration error, with 95% intervals."""
    from vitcnn import figures

    columns = {"top1": ("top-1 accuracy (%)", 100), "nll": ("negative log-likelihood (nat)", 1)}
    if all("ece" in result for result in results):
        columns["ece"] = ("expected calibration error (%)", 100)
    return figures.intervals(results, columns)


@figure(
    "Calibration",
    "Accuracy of the images whose top-1 probability lies in a bin, against that "
    "probability. On the dashed line a network is as sure as it is right.",
)
def draw_calibration(results: Sequence[xarray.Dataset]) -> Figure | None:
    """Draws the accuracy of each bin against its confidence; returns None without bins."""
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
    perfect = [(((0, 1), (0, 1)), "calibrated")] * len(results)
    return figures.curves(results, panels, titles, "top-1 accuracy", perfect, share=True)
