"""Verdicts: what an effect, its standard error and the number of seeds or images say of a claim.

The claims themselves, each in a file of `vitcnn.claims`, measure an `Effect` with the functions at
the end of this file; `judge` makes a `Claim` of it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import xarray

from vitcnn.numerics import statistics
from vitcnn.numerics.statistics import Z, over_seeds

QUESTIONS = ("1", "2", "3", "4a", "4b", "5", "6", "7a", "7b", "8a", "8b", "9")
BLOCKS = 64  # of the jackknife, at most
LEVEL = 0.05  # of the corrected p-values
ROUNDING = 1e-9  # an effect or an error below it is zero
FEW = 10  # groups, or images, below which 1.96 is clearly too small a multiple
MANY = 1000  # times as much data, or seeds, beyond which no one will go
ROUGH = "Rests on best matches (argmax), for which the jackknife interval is rough."


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a claim measures.

    Attributes:
      value: the estimate; positive speaks for the claim. NaN where it is not defined.
      error: its standard error.
      name: what the value is, with its unit and the names of the models.
      note: what a reader should mind.
      undefined: why the value is NaN, where it is.
      over: what the standard error was taken over: "groups of images", "images" or "seeds".
      seeds: number of seeds, of an error over seeds.
      image_error: standard error over images, of a value whose `error` is over seeds.
    """

    value: float
    error: float
    name: str
    note: str = ""
    undefined: str = "no live layers to take it from"
    over: str = "groups of images"
    seeds: int = 0
    image_error: float = float("nan")

    @property
    def half_width(self) -> float:
        """Half of the 95% interval."""
        return self.quantile * self.error

    @property
    def quantile(self) -> float:
        """Standard errors in half of the interval: of Student's t over seeds, else 1.96."""
        from scipy.stats import t as student  # which takes a second to import

        return float(student.ppf(0.975, max(self.seeds - 1, 1))) if self.over == "seeds" else Z


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper, judged for one or several models.

    Attributes:
      number: number of the claim, such as "4a"; or a figure of the paper.
      statement: the claim, of ViTs and CNNs in general.
      effect_name: what the effect is, with its unit.
      definition: how the effect is computed, in words.
      effect: the estimate; positive speaks for the claim. NaN if it is not defined.
      interval: its 95% interval, on which the verdict rests.
      over: what that interval was taken over: "groups of images", "images" or "seeds".
      image_interval: the 95% interval over images of an effect whose `interval` is over seeds; NaN
        otherwise.
      verdict: "holds", "does not hold" or "cannot tell".
      settled_by: what would let the data tell, where they cannot.
      p: two-sided p-value of the effect against zero, by Student's t with as many degrees of
        freedom as seeds, blocks of images or images less one; NaN for an interval without width.
      corrected_p: the same, corrected for all `QUESTIONS`; NaN for other claims.
      models: names of the models that it was asked of.
      source: figure of the paper.
      note: why the data cannot tell, and what to mind.
    """

    number: str
    statement: str
    effect_name: str
    definition: str
    effect: float
    interval: tuple[float, float]
    over: str
    image_interval: tuple[float, float]
    verdict: str
    settled_by: str
    p: float
    corrected_p: float
    models: tuple[str, ...]
    source: str
    note: str = ""

    @property
    def is_question(self) -> bool:
        """Whether it is one of the twelve `QUESTIONS`."""
        return self.number in QUESTIONS

    @property
    def survives(self) -> bool:
        """Whether the verdict stands after the correction for all `QUESTIONS`."""
        return self.verdict != "cannot tell" and self.corrected_p <= LEVEL

    def __str__(self) -> str:
        low, high = self.interval
        title = f"Claim {self.number} ({self.source})" if self.is_question else self.number
        marked = " (also after Holm's correction)" if self.survives else ""
        lines = [
            f"{title}, {' and '.join(self.models)}: {self.statement}",
            f"  {self.verdict.upper()}{marked}: {self.effect_name} = {self.effect:.3f}, "
            f"95% interval over {self.over} {low:.3f} to {high:.3f}",
        ]
        if not math.isnan(self.image_interval[0]):
            low, high = self.image_interval
            lines.append(f"  95% interval over images {low:.3f} to {high:.3f}")
        lines.append(f"  ({self.definition})")
        lines += [f"  {text}" for text in (self.note, self.settled_by) if text]
        return "\n".join(lines)


def judge(
    claim: ModuleType,
    effect: Effect,
    origins: Sequence[Mapping[str, Any]],
    models: tuple[str, ...],
) -> Claim:
    """Returns a claim with its intervals, its verdict, and what to mind.

    Args:
      claim: file of this folder.
      effect: what its `measure` returned.
      origins: provenance of the Results that the effect was read off.
      models: the models that it was asked of.
    """
    low, high = effect.value - effect.half_width, effect.value + effect.half_width
    verdict, reason = _verdict(effect, low, high)
    is_over_seeds = effect.over == "seeds"
    parts = effect.seeds if is_over_seeds else min(_parts(o, effect.over) for o in origins)
    if math.isnan(effect.error) and not math.isnan(effect.value):
        reason = f"No interval: it takes at least two {effect.over}, and there is {parts}."
    notes = [reason, effect.note]
    if is_over_seeds:
        warnings = list(dict.fromkeys(w for origin in origins for w in origin["warnings"]))
        if any(warning.startswith("VOID") for warning in warnings):
            verdict = "cannot tell"
        if parts > 1:
            notes.append(
                f"{parts} seeds: the interval is {effect.quantile:.1f} standard errors to either "
                "side (Student's t), where many seeds would make it 2.0."
            )
        notes += warnings
    else:
        notes += _of_images(claim, effect, origins, models, parts)
    half = Z * effect.image_error
    settled_by = _settled_by(effect, parts, origins) if verdict == "cannot tell" else ""
    blocks = min(parts, BLOCKS) if effect.over == "groups of images" else parts
    return Claim(
        claim.NUMBER,
        claim.STATEMENT,
        effect.name,
        claim.DEFINITION,
        effect.value,
        (low, high),
        effect.over,
        (effect.value - half, effect.value + half),
        verdict,
        settled_by,
        statistics.p_value(effect.value, _no_rounding(effect.error), blocks - 1),
        float("nan"),
        models,
        claim.SOURCE,
        " ".join(note for note in notes if note),
    )


def _of_images(
    claim: ModuleType,
    effect: Effect,
    origins: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    parts: int,
) -> list[str]:
    """Returns what to mind of an effect whose error is over images."""
    jobs = {origin["name"] for origin in origins if origin["name"].split(".")[0] != claim.ANALYSIS}
    return [
        f"Read off {', '.join(sorted(jobs))}." if jobs else "",
        "No left-out block changed it: the interval has no width."
        if effect.error < ROUNDING
        else "",
        *(
            f"{model} has random weights."
            for model, origin in zip(models, origins, strict=True)
            if origin["models"][model].get("weights", {}).get("format") == "random"
        ),
        f"Only {parts} {effect.over}: the interval is too narrow." if 1 < parts < FEW else "",
    ]


def _verdict(effect: Effect, low: float, high: float) -> tuple[str, str]:
    """Returns the verdict, and why the data cannot tell."""
    if math.isnan(effect.value):
        return "cannot tell", f"The effect is undefined: {effect.undefined}."
    if low > ROUNDING:
        return "holds", ""
    if high < -ROUNDING:
        return "does not hold", ""
    return "cannot tell", "The interval includes zero."


def _no_rounding(error: float) -> float:
    """Returns a standard error, 0 in place of one that is rounding."""
    return 0.0 if error < ROUNDING else error


def _settled_by(effect: Effect, parts: int, origins: Sequence[Mapping[str, Any]]) -> str:
    """Returns what would let the data tell."""
    warnings = [w for origin in origins for w in origin["warnings"] if w.startswith("VOID")]
    if effect.over == "seeds" and warnings:
        return "A baseline that reaches its accuracy would settle it: train for more steps."
    if math.isnan(effect.value):
        return "Models for which the effect is defined would settle it."
    if math.isnan(effect.error):
        return f"At least two {effect.over} would give the effect an interval."
    beyond = (
        "The effect is so small that no practicable number of {} would settle its sign; all that "
        "can be said is that it lies in the interval."
    )
    if effect.over == "seeds":
        deviation = effect.error * math.sqrt(parts)
        more = range(parts + 1, MANY)
        enough = next((n for n in more if _interval(deviation, n) < abs(effect.value)), None)
        if enough is None:
            return beyond.format("seeds")
        return f"If the effect is as large as it seems, about {enough} seeds would settle it."
    ratio = (Z * effect.error / abs(effect.value)) ** 2 if effect.value else math.inf
    if ratio > MANY:
        return beyond.format("images")
    images = _two_digits(1.1 * ratio * min(origin["fields"]["images"] for origin in origins))
    return f"If the effect is as large as it seems, about {images:,} images would settle it."


def _interval(deviation: float, seeds: int) -> float:
    """Returns half of the 95% interval of the mean over seeds."""
    return Effect(0, deviation / math.sqrt(seeds), "", over="seeds", seeds=seeds).half_width


def _two_digits(number: float) -> int:
    """Returns a number rounded up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return math.ceil(number / unit) * unit


def _parts(origin: Mapping[str, Any], over: str) -> int:
    """Returns how many groups of images, or images, an error was taken over."""
    size = origin["group"] if over == "groups of images" else 1
    return math.ceil(origin["fields"]["images"] / size)


def corrected(claims: Sequence[Claim]) -> list[Claim]:
    """Returns the claims with p-values corrected for all questions.

    A question counts once for every choice of models that it was asked of and every Result that it
    was read off, and at least once.
    """
    questions = [claim for claim in claims if claim.is_question]
    family = len(questions) + len(set(QUESTIONS) - {claim.number for claim in questions})
    p_values = iter(statistics.holm(np.array([claim.p for claim in questions]), family))
    return [
        dataclasses.replace(claim, corrected_p=float(next(p_values)))
        if claim.is_question
        else claim
        for claim in claims
    ]


def place(claim: Claim) -> tuple:
    """Returns what claims are sorted by: the questions in their order, then figures."""
    if claim.is_question:
        return 0, QUESTIONS.index(claim.number)
    parts = re.split(r"(\d+)", claim.number)  # Fig. 5 comes before Fig. 11
    return (1, *(part.zfill(4) if part.isdigit() else part for part in parts))


def over_seeds_effect(
    values: np.ndarray, name: str, note: str = "", errors: np.ndarray | None = None
) -> Effect:
    """Returns an effect that was measured once for each seed.

    Args:
      values: the effect for each seed, NaN where a training diverged.
      name: what it is.
      note: what a reader should mind.
      errors: the standard error over images of each value. All networks saw the same images, so the
        error of the mean over seeds is taken to be the mean error.
    """
    numbers = {key: float(value) for key, value in over_seeds(values).items()}
    finite = np.isfinite(values)
    has_errors = errors is not None and finite.any()
    image_error = float(np.mean(np.asarray(errors)[finite])) if has_errors else float("nan")
    return Effect(
        numbers["mean"],
        numbers["standard_error"],
        name,
        note,
        "every seed diverged",
        "seeds",
        int(finite.sum()),
        image_error,
    )


def of_networks(result: xarray.Dataset, name: str) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Returns a variable of an ablation for every network, and its standard error over images.

    The errors are NaN where the Result has none.
    """
    values = result[name]
    return values, result.get(f"{name}_standard_error", values * np.nan)


def number_of(result: xarray.Dataset, name: str, **at: Any) -> tuple[float, float]:
    """Returns a number of a Result and its standard error.

    Args:
      result: the Result.
      name: name of the variable.
      **at: coordinates where the variable has several numbers, such as model_x="vit".
    """
    error = result[f"{name}_standard_error"]
    return float(result[name].sel(at)), float(error.sel(at))


def difference(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Returns the difference of two numbers and its standard error, as if they were independent.

    Both networks saw the same images, which makes the true error rather smaller.
    """
    return a[0] - b[0], math.hypot(a[1], b[1])


def mean_of(rows: xarray.Dataset, name: str) -> tuple[float, float]:
    """Returns the mean of a variable over layers, and the mean of its standard errors.

    All layers saw the same images, so their errors do not average out.
    """
    return float(rows[name].mean()), float(rows[f"{name}_standard_error"].mean())


def of_matches(result: xarray.Dataset, variable: str, name: str, x: str, y: str) -> Effect:
    """Returns an effect that rests on the best matches of the layers of model x in model y.

    Its note says how far the CKA of these matches is above chance; where it is not above chance,
    the effect is undefined.

    Args:
      result: Result of the analysis `cka`.
      variable: the variable [model_x, model_y] with the effect.
      name: name of the effect.
      x, y: names of models.
    """
    effect = number_of(result, variable, model_x=x, model_y=y)
    if "match_null" not in result:  # of a Result from before there was one
        return Effect(*effect, name, ROUGH)
    rows = result.isel(layer_x=result.model_of_x.values == x).sel(model_y=y)
    matched, null = (float(rows[name].mean()) for name in ("match_cka", "match_null"))
    note = (
        f"{ROUGH} The CKA of the best matches is {matched:.2f} on average, {matched - null:.2f} "
        f"above the best matches of permuted images ({null:.2f})."
    )
    if matched <= null:
        return Effect(
            math.nan, math.nan, name, note, "the best matches are no better than by chance"
        )
    return Effect(*effect, name, note)
