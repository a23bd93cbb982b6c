"""Fitted probes: how a Result holds them, and how many images they classify correctly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from vitcnn.numerics.arrays import Array
from vitcnn.probes import features
from vitcnn.taps import TapInfo

PARTS = {  # part of a probe -> (dimensions after draw and position, long name)
    "mean": (("channel",), "mean of each channel"),
    "scale": (("channel",), "deviation of each channel, infinite where it does not vary"),
    "basis": (("channel", "component"), "eigenvectors of the whitened X'X"),
    "eigenvalues": (("component",), "eigenvalues of the whitened X'X"),
    "projection": (("component", "class"), "whitened X'Y in that basis"),  # of the eigenvectors
}


def variable(tap: str, feature: str, part: str) -> str:
    """Returns the name of a part of a probe in a Result, where "/" is not allowed."""
    return f"{tap.replace('/', '.')}.{feature}.{part}"


def fitted(
    stage: str, layers: Sequence[tuple[str, str]], given: Mapping[str, Mapping]
) -> tuple[Mapping, dict[str, tuple[str, ...]]]:
    """Returns the arrays of the fit, and the features that it has for each tap.

    Args:
      stage: name of the stage of the fit.
      layers: (model, tap) of every layer that is scored.
      given: by name of the stage, the arrays of the Result of the job with the same name.

    Raises:
      ValueError: there is no fit of this model, or the fit is of other taps.
    """
    if stage not in given:
        raise ValueError(
            f"the stage {stage!r} has no probe of this model; give both jobs the same models"
        )
    fit = given[stage]
    if "target_mean" not in fit:
        raise ValueError(
            f"the stage {stage!r} fitted no probe; its job needs the analysis probe_fit"
        )
    probes = {
        tap: tuple(f for f in features.ORDER if variable(tap, f, "basis") in fit)
        for _, tap in layers
    }
    missing = [tap for tap, present in probes.items() if not present]
    if missing:
        raise ValueError(
            f"the fit has no probe of {', '.join(missing)}; give both jobs the same taps"
        )
    here = {variable(tap, f, "basis") for tap in probes for f in probes[tap]}
    other = sorted({name for name in fit if name.endswith(".basis")} - here)
    if other:
        names = ", ".join(name.removesuffix(".basis") for name in other)
        raise ValueError(f"the fit also has probes of {names}; give both jobs the same taps")
    return fit, probes


def side(info: TapInfo, feature: str, channels: int) -> int:
    """Returns the side of the patches of a fit, inferred from its number of channels.

    Args:
      info: description of the tap.
      feature: feature that the probe reads.
      channels: number of channels of the fit: channels of the tap times the square of the side.

    Raises:
      ValueError: the fit cannot be of this tap.
    """
    whole = feature == features.WHOLE
    width = math.prod(info.shape) if whole else features.channels(info)
    length = math.isqrt(channels // width)
    if width * length * length != channels:
        raise ValueError(
            f"the fit of {info.name} has {channels} channels, the layer here {width}: the fit is "
            "of another model; give both jobs the same models"
        )
    return length


def intercepts(
    target_mean: Float[Array, "draw class"],
    images: Float[Array, " draw"] | Int[Array, " draw"],
    penalties: Float[Array, "draw penalty"],
    constant: float,
) -> Float[Array, "draw penalty class"]:
    """Returns the intercepts of a fit for each penalty.

    The other features have mean 0 over the images of the fit, so the weight w of the constant
    feature c is fitted by itself: (n c^2 + penalty) w = c n target_mean.

    Args:
      target_mean: the intercepts without a penalty.
      images: number of images of the fit.
      penalties: the L2 penalties.
      constant: the constant feature; 0 for no penalty on the intercept.
    """
    energy = images[:, None] * constant**2
    share = energy / (energy + penalties) if constant else jnp.ones_like(penalties)
    return share[..., None] * target_mean[:, None]


def count_right(
    x: Float[Array, "*position n channel"],
    parts: Mapping[str, Float[Array, "draw ..."]],
    intercepts: Float[Array, "draw penalty class"],
    penalties: Float[Array, "draw penalty"],
    label: Int[Array, " n"],
) -> Float[Array, "draw penalty *position"]:
    """Returns how many images each probe classifies correctly, probe by probe to save memory.

    Args:
      x: the feature of the images, from `features.take`.
      parts: the `PARTS` of the probes.
      intercepts: see `intercepts`.
      penalties: the L2 penalties to score.
      label: class index of each image; an image with -1 does not count.
    """

    def of_draw(operands):
        parts, intercepts, penalties = operands
        of_position = lambda a: _right(*a, intercepts, penalties, label)  # noqa: E731
        return jax.lax.map(of_position, (x, parts)).T if x.ndim == 3 else of_position((x, parts))

    return jax.lax.map(of_draw, (parts, intercepts, penalties))


def _right(x, part, intercepts, penalties, label) -> Float[Array, " penalty"]:
    """Returns the number of correct answers of one probe; see `probe_fit` for the formula."""
    highest = {"precision": jax.lax.Precision.HIGHEST}
    # The mean is subtracted first, since it may be much larger than the rest of x.
    x = jnp.matmul((x - part["mean"]) / part["scale"], part["basis"], **highest)

    def right(operands):
        penalty, intercept = operands
        scores = jnp.matmul(x / (part["eigenvalues"] + penalty), part["projection"], **highest)
        scores += intercept
        true = jnp.take_along_axis(scores, jnp.maximum(label, 0)[:, None], axis=1)
        # Ties count against the probe; otherwise a constant probe would be right about class 0.
        other = jnp.arange(scores.shape[1]) != label[:, None]
        beaten = jnp.any((scores >= true) & other, axis=1) | ~jnp.isfinite(true[:, 0])
        return jnp.sum(~beaten & (label >= 0)).astype(jnp.float32)

    counts = jax.lax.map(right, (penalties, intercepts))
    return jnp.where(jnp.isnan(part["mean"]).any(), jnp.nan, counts)
