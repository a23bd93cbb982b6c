"""Durations: "300 epochs", "10000 steps", "1e6 examples" or "5%" as a number of steps."""

from __future__ import annotations

import math
import re

from vitcnn.lookup import nearest

Duration = int | float | str

UNITS = ("steps", "epochs", "examples", "%")

_EXPECTED = (
    'expected a whole number of steps, or text such as "10000 steps", "300 epochs", '
    '"1e6 examples" or "5%" (of the training)'
)


def steps(
    duration: Duration,
    *,
    batch: int,
    images: int,
    total: int | None = None,
    where: str = "config.steps",
) -> int:
    """Returns a duration as a number of steps, rounded to the nearest.

    A duration that is not 0 is at least one step. 300 epochs of n images are
    round(300 n / batch) steps, not 300 times the whole batches of an epoch.

    Args:
      duration: a whole number of steps, or a number and a unit, such as "90 epochs" or "1 epoch".
      batch: number of images in a step.
      images: number of images in an epoch.
      total: number of steps of the whole training, which "%" is a part of; None if this is the
        duration of the training itself.
      where: name of the field, for error messages.

    Raises:
      ValueError: the duration cannot be read, is negative, or is a percentage without a `total`.
    """
    number, unit = _parse(duration, where)
    if unit == "%":
        if total is None:
            raise ValueError(
                f"{where} = {duration!r}: a percentage is a part of the training, whose own length "
                'is given in steps, epochs or examples, such as "300 epochs"'
            )
        if number > 100:
            raise ValueError(f"{where} = {duration!r}: expected at most 100%")
    if number == 0:
        return 0
    exact = {
        "steps": number,
        "epochs": number * images / batch,
        "examples": number / batch,
        "%": number * (total or 0) / 100,
    }[unit]
    return max(1, math.floor(exact + 0.5))


def _parse(duration: Duration, where: str) -> tuple[float, str]:
    """Returns (number, one of UNITS)."""
    match = re.fullmatch(
        r"\s*([-+]?[\d.][\d._]*(?:e[-+]?\d+)?)\s*([a-z]*|%)\s*", str(duration).lower()
    )
    try:
        number = float(match[1])
    except (TypeError, ValueError):  # no match, or a number such as "1.2.3"
        raise ValueError(f"{where} = {duration!r}: {_EXPECTED}") from None
    unit = match[2] if match[2] in UNITS else f"{match[2]}s" if match[2] else "steps"
    if unit not in UNITS:
        raise ValueError(
            f"{where} = {duration!r}: unknown unit {match[2]!r}, {nearest(match[2], UNITS)} "
            f"({_EXPECTED})"
        )
    if number < 0 or math.isinf(number) or (unit == "steps" and not number.is_integer()):
        raise ValueError(f"{where} = {duration!r}: {_EXPECTED}")
    return number, unit
