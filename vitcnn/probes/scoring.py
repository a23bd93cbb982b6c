"""Fitted probes: how a Result holds them, and how many images they get right."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitcnn.probes import features as probe_features
from vitcnn.taps import TapInfo

PARTS = {  # part of a probe -> (dimensions behind draw and position, long name)
    "mean": (("channel",), "mean of each channel"),
    "scale": (("channel",), "deviation of each channel, infinite where it does not vary"),
    "basis": (("channel", "component"), "eigenvectors of the whitened X'X"),
    "eigenvalues": (("component",), "eigenvalues of the whitened X'X"),
    "projection": (("component", "class"), "whitened X'Y in that basis"),
}


def variable(tap: str, feature: str, part: str) -> str:
    """Returns the name of a part of a probe in a Result, where "/" is not allowed."""
    return f"{tap.replace('/', '.')}.{feature}.{part}"


def fitted(config, given) -> tuple[Mapping, dict[str, tuple[str, ...]]]:
    """Returns the arrays of the fit, and which features it has by tap.

    Args:
      config: of the analysis that scores it.
      given: its Results of earlier stages.

    Raises:
      ValueError: there is no fit of this model, or not of the same taps.
    """
    if config.fit not in given:
        raise ValueError(
            f"the stage {config.fit!r} has no probe of this model; give both jobs the same models"
        )
    fit = given[config.fit]
    if "target_mean" not in fit:
        raise ValueError(
            f"the stage {config.fit!r} has fitted nothing; its job needs analysis = probe_fit"
        )
    probes = {
        tap: tuple(f for f in probe_features.EVERY if variable(tap, f, "basis") in fit)
        for _, tap in config.layers
    }
    missing = [tap for tap, features in probes.items() if not features]
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
    """Returns the side of the patches that the fit made, which its number of channels tells.

    Raises:
      ValueError: it cannot have been made of this tap.
    """
    is_whole = feature == probe_features.WHOLE
    whole = math.prod(info.shape) if is_whole else probe_features.channels(info)
    side = math.isqrt(channels // whole)
    if whole * side * side != channels:
        raise ValueError(
            f"the fit of {info.name} has {channels} channels, the layer here {whole}; it was made "
            "with another model"
        )
    return side


def count_right(
    x: Float[Array, "*position n channel"],
    parts: Mapping[str, Float[Array, "draw ..."]],
    target_mean: Float[Array, "draw class"],
    penalties: Float[Array, "draw penalty"],
    label: Int[Array, " n"],
) -> Float[Array, "draw penalty *position"]:
    """Returns how many images each probe gets right, one after the other to save memory."""

    def of_draw(operands):
        parts, target_mean, penalties = operands
        one = lambda a: _right(*a, target_mean, penalties, label)  # noqa: E731
        return jax.lax.map(one, (x, parts)).T if x.ndim == 3 else one((x, parts))

    return jax.lax.map(of_draw, (parts, target_mean, penalties))


def _right(x, part, target_mean, penalties, label) -> Float[Array, " penalty"]:
    """Returns the number of right answers of one probe; see `probe_fit`."""
    highest = {"precision": jax.lax.Precision.HIGHEST}
    # The mean goes first: it may be much larger than what is left.
    x = jnp.matmul((x - part["mean"]) / part["scale"], part["basis"], **highest)

    def right(penalty):
        scores = jnp.matmul(x / (part["eigenvalues"] + penalty), part["projection"], **highest)
        scores += target_mean
        true = jnp.take_along_axis(scores, jnp.maximum(label, 0)[:, None], axis=1)
        # Ties count against the probe, or one that knows nothing would be right about class 0.
        other = jnp.arange(scores.shape[1]) != label[:, None]
        beaten = jnp.any((scores >= true) & other, axis=1) | ~jnp.isfinite(true[:, 0])
        return jnp.sum(~beaten & (label >= 0)).astype(jnp.float32)

    counts = jax.lax.map(right, penalties)
    return jnp.where(jnp.isnan(part["mean"]).any(), jnp.nan, counts)
