"""A claim and its verdict, from an effect and its standard error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import xarray

from vitcnn import results as results_
from vitcnn.numerics.statistics import Z

ROUNDING = 1e-9  # effects below are zero
FEW = 10  # groups, or images, below which 1.96 is clearly too small a multiple


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper, asked of two models.

    Attributes:
      number: number of the claim.
      statement: the claim, of ViTs and ResNets in general.
      effect_name: what the effect is, with its unit.
      definition: how it is computed, in words.
      effect: the estimate; positive speaks for the claim. NaN if it is not defined.
      interval: its 95% interval.
      verdict: "holds", "does not hold" or "cannot tell".
      models: names of the ViT and, where there is one, of the ResNet.
      source: figure of the paper.
      note: why the data cannot tell, or what to mind.
    """

    number: int
    statement: str
    effect_name: str
    definition: str
    effect: float
    interval: tuple[float, float]
    verdict: str
    models: tuple[str, ...]
    source: str
    note: str = ""

    def __str__(self) -> str:
        low, high = self.interval
        lines = [
            f"Claim {self.number} ({self.source}), {' and '.join(self.models)}: {self.statement}",
            f"  {self.verdict.upper()}: {self.effect_name} = {self.effect:.3f}, "
            f"95% interval {low:.3f} to {high:.3f}",
            f"  ({self.definition})",
        ]
        return "\n".join(lines + [f"  {self.note}"] * bool(self.note))


def read(result: xarray.Dataset, name: str, x: str, y: str) -> tuple[float, float]:
    """Returns a number of a pair of models and its standard error."""
    at = {"model_x": x, "model_y": y}
    return float(result[name].sel(at)), float(result[f"{name}_standard_error"].sel(at))


def scalar(result: xarray.Dataset, name: str) -> tuple[float, float]:
    """Returns a number and its standard error."""
    return float(result[name]), float(result[f"{name}_standard_error"])


def difference(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Returns the difference of two numbers and its standard error, as if they were independent.

    Both networks saw the same images, which makes the true error rather smaller.
    """
    return a[0] - b[0], math.hypot(a[1], b[1])


def judge(
    number: int,
    statement: str,
    effect_name: str,
    definition: str,
    measured: tuple[float, float],
    models: tuple[str, ...],
    source: str,
    results: Sequence[xarray.Dataset],
    note: str = "",
    undefined: str = "no live layers to take it from",
    over: str = "groups of images",
) -> Claim:
    """Returns the claim with its interval, its verdict, and what to mind.

    Args:
      number, statement, effect_name, definition, models, source: see `Claim`.
      measured: the effect and its standard error.
      results: the Results that it was read off.
      note: what else to mind.
      undefined: why an effect is NaN.
      over: what the standard error was taken over, "groups of images" or "images".
    """
    effect, error = measured
    low, high = effect - Z * error, effect + Z * error
    origins = [results_.provenance(result) for result in results]
    sizes = [o["group"] if over == "groups of images" else 1 for o in origins]
    parts = min(math.ceil(o["fields"]["images"] / n) for o, n in zip(origins, sizes, strict=True))
    known = {name: model for o in origins for name, model in o["models"].items()}
    notes = [note] if note else []
    jobs = dict.fromkeys(o["name"] for o in origins if o["name"].split(".")[0] != o["analysis"])
    if jobs:  # the same claim of class tokens alone, say, stands beside it
        notes.insert(0, f"Read off {', '.join(jobs)}.")
    if math.isnan(effect):
        verdict, reason = "cannot tell", f"The effect is undefined: {undefined}."
    elif math.isnan(error):
        verdict = "cannot tell"
        reason = f"No error bar: it takes at least two {over}, and there is {parts}."
    elif low > ROUNDING:
        verdict, reason = "holds", ""
    elif high < -ROUNDING:
        verdict, reason = "does not hold", ""
    else:
        verdict, reason = "cannot tell", "The interval includes zero."
    if error < ROUNDING:
        notes.append("No left-out block changed it: the interval has no width.")
    for name in models:
        if known[name].get("weights", {}).get("format") == "random":
            notes.append(f"{name} has random weights.")
    if 1 < parts < FEW:
        notes.append(f"Only {parts} {over}: the interval is too narrow.")
    if reason:
        notes.insert(0, reason)
    return Claim(
        number,
        statement,
        effect_name,
        definition,
        effect,
        (low, high),
        verdict,
        models,
        source,
        " ".join(notes),
    )
