"""Claims: what the paper says, asked of the models that were measured. One claim a file.

Adding a file to this folder registers a claim. A claim is

    NUMBER = 1                       # of the claim; claims are listed in this order
    STATEMENT = "..."                # the claim, of ViTs and CNNs in general
    SOURCE = "Fig. 1"                # figure of the paper
    DEFINITION = "..."               # how its effect is computed, in words
    ANALYSIS = "cka"                 # the analysis whose Results it reads
    KINDS = ("vit", "cnn")           # it asks of every choice of one model of each kind

    def measure(results, vit, cnn): ...   # name of a model -> its Result -> Effect, or None

A claim on training is asked of an ablation. In place of ANALYSIS and KINDS it has

    ABLATION = "skips"               # the ablation whose Results it reads

    def measure(results): ...        # name of an analysis -> its Result -> Effect, or None

and the interval of its effect is Student's, over seeds.

`results` holds the Results of one run of the analysis by model; models that were measured together
share one Result. `measure` returns None where the claim says nothing of these models. A claim holds
when the whole interval of its effect lies above zero, does not hold when the whole interval lies
below, and otherwise the data cannot tell.

An interval is the estimate plus and minus 1.96 jackknife standard errors. It says how far the
number depends on which images were drawn, for these very networks; it says nothing of other
training runs. Claims 2 and 3 rest on the best match of a layer, the argmax of a row of CKA. An
argmax jumps from layer to layer where two layers are nearly as similar, and the jackknife of a
statistic that jumps is rough: too wide where a jump falls between blocks of images, and zero where
no left-out block changes any match. Take those intervals as a guide.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import xarray

from vitcnn import lookup
from vitcnn.numerics.statistics import Z, over_seeds
from vitcnn.results import datasets

__all__ = [
    "Claim",
    "Effect",
    "all_claims",
    "difference",
    "judge",
    "judge_ablation",
    "number_of",
    "over_seeds_effect",
]

ROUNDING = 1e-9  # an effect or an error below it is zero
FEW = 10  # groups, or images, below which 1.96 is clearly too small a multiple
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
      half_width: half of the 95% interval, where it is not 1.96 standard errors.
    """

    value: float
    error: float
    name: str
    note: str = ""
    undefined: str = "no live layers to take it from"
    over: str = "groups of images"
    half_width: float | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper, judged for one or several models.

    Attributes:
      number: number of the claim.
      statement: the claim, of ViTs and CNNs in general.
      effect_name: what the effect is, with its unit.
      definition: how the effect is computed, in words.
      effect: the estimate; positive speaks for the claim. NaN if it is not defined.
      interval: its 95% interval.
      verdict: "holds", "does not hold" or "cannot tell".
      models: names of the models that it was asked of.
      source: figure of the paper.
      note: why the data cannot tell, and what to mind.
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


def all_claims(results: Mapping[str, xarray.Dataset] | Iterable[xarray.Dataset]) -> list[Claim]:
    """Returns every claim that the Results speak of, for every choice of models that it asks of.

    Args:
      results: Results with provenance, as `vitcnn.analyze` or `vitcnn.results.load_all` returns
        them.
    """
    if not isinstance(results, Mapping):
        results = {str(i): result for i, result in enumerate(results)}
    claims = []
    for name in lookup.names_in(sys.modules[__name__]):
        claim = lookup.find("claim", sys.modules[__name__], name)
        if hasattr(claim, "ABLATION"):
            for ablation in _ablations(results, claim.ABLATION):
                effect = claim.measure(ablation)
                if effect is not None:
                    claims.append(judge_ablation(claim, effect, ablation))
            continue
        for run in _runs(results, claim.ANALYSIS):
            kinds = {model: _kind(result, model) for model, result in run.items()}
            of_kind = [[m for m, kind in kinds.items() if kind == asked] for asked in claim.KINDS]
            for models in itertools.product(*of_kind):
                effect = claim.measure(run, *models)
                if effect is not None:
                    claims.append(judge(claim, effect, run, models))
    return sorted(claims, key=lambda claim: claim.number)


def _runs(
    results: Mapping[str, xarray.Dataset], analysis: str
) -> Iterator[dict[str, xarray.Dataset]]:
    """Yields the Results of each run of an analysis, by model.

    Results of one model each, as a job "localization" writes them to "localization.vit" and
    "localization.resnet", belong together if they come from one job and lie in one folder. A model
    that occurs twice there, as in a list of Results of several workdirs, begins another run.
    """
    runs: dict[tuple[str, ...], list[dict[str, xarray.Dataset]]] = collections.defaultdict(list)
    for name, result in results.items():
        origin = datasets.provenance(result)
        if origin["analysis"] != analysis:
            continue
        models = list(origin["models"])
        job = origin["name"].removesuffix(f".{models[0]}")
        alone = len(models) == 1 and job != origin["name"]
        run = (name.rpartition("/")[0], job) if alone else (name,)
        by_model = dict.fromkeys(models, result)
        for earlier in runs[run]:
            if not earlier.keys() & by_model.keys():
                earlier |= by_model
                break
        else:
            runs[run].append(by_model)
    yield from itertools.chain.from_iterable(runs.values())


def _ablations(
    results: Mapping[str, xarray.Dataset], name: str
) -> Iterator[dict[str, xarray.Dataset]]:
    """Yields the Results of each ablation of a name, by analysis."""
    folders: dict[str, dict[str, xarray.Dataset]] = collections.defaultdict(dict)
    for path, result in results.items():
        origin = datasets.provenance(result)
        if origin.get("ablation") == name:
            folders[path.rpartition("/")[0]][origin["name"]] = result
    yield from folders.values()


def over_seeds_effect(values: np.ndarray, name: str, note: str = "") -> Effect:
    """Returns an effect that was measured once for each seed.

    Args:
      values: the effect for each seed, NaN where a training diverged.
      name: what it is.
      note: what a reader should mind.
    """
    numbers = {key: float(value) for key, value in over_seeds(values).items()}
    return Effect(
        numbers["mean"],
        numbers["standard_error"],
        name,
        note,
        "every seed diverged",
        "seeds",
        numbers["half_width"],
    )


def judge_ablation(
    claim: ModuleType, effect: Effect, results: Mapping[str, xarray.Dataset]
) -> Claim:
    """Returns a claim on training with its interval over seeds, its verdict, and what to mind.

    Args:
      claim: file of this folder.
      effect: what its `measure` returned.
      results: the Results of the ablation by analysis.
    """
    origins = [datasets.provenance(result) for result in results.values()]
    low, high = effect.value - effect.half_width, effect.value + effect.half_width
    verdict, reason = _verdict(effect, low, high)
    if math.isnan(effect.error) and not math.isnan(effect.value):
        reason = "No interval: it takes at least two seeds."
    warnings = list(dict.fromkeys(w for origin in origins for w in origin["warnings"]))
    if any(warning.startswith("VOID") for warning in warnings):
        verdict = "cannot tell"
    return Claim(
        claim.NUMBER,
        claim.STATEMENT,
        effect.name,
        claim.DEFINITION,
        effect.value,
        (low, high),
        verdict,
        (f"ablation {claim.ABLATION}",),
        claim.SOURCE,
        " ".join(note for note in (reason, effect.note, *warnings) if note),
    )


def _kind(result: xarray.Dataset, model: str) -> str:
    """Returns the kind of a model; Results from before models had kinds have none, ""."""
    return datasets.provenance(result)["models"][model].get("kind", "")


def judge(
    claim: ModuleType,
    effect: Effect,
    results: Mapping[str, xarray.Dataset],
    models: tuple[str, ...],
) -> Claim:
    """Returns a claim with its interval, its verdict, and what to mind.

    Args:
      claim: file of this folder.
      effect: what its `measure` returned.
      results: the Results of the run by model.
      models: the models that it was asked of.
    """
    low, high = effect.value - Z * effect.error, effect.value + Z * effect.error
    verdict, reason = _verdict(effect, low, high)
    origins = [datasets.provenance(results[model]) for model in models]
    parts = min(_parts(origin, effect.over) for origin in origins)
    if math.isnan(effect.error) and not math.isnan(effect.value):
        reason = f"No error bar: it takes at least two {effect.over}, and there is {parts}."
    jobs = {origin["name"] for origin in origins if origin["name"].split(".")[0] != claim.ANALYSIS}
    notes = [
        reason,
        f"Read off {', '.join(sorted(jobs))}." if jobs else "",
        effect.note,
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
    return Claim(
        claim.NUMBER,
        claim.STATEMENT,
        effect.name,
        claim.DEFINITION,
        effect.value,
        (low, high),
        verdict,
        models,
        claim.SOURCE,
        " ".join(note for note in notes if note),
    )


def _verdict(effect: Effect, low: float, high: float) -> tuple[str, str]:
    """Returns the verdict, and why the data cannot tell."""
    if math.isnan(effect.value):
        return "cannot tell", f"The effect is undefined: {effect.undefined}."
    if low > ROUNDING:
        return "holds", ""
    if high < -ROUNDING:
        return "does not hold", ""
    return "cannot tell", "The interval includes zero."


def _parts(origin: Mapping[str, Any], over: str) -> int:
    """Returns how many groups of images, or images, an error was taken over."""
    size = origin["group"] if over == "groups of images" else 1
    return math.ceil(origin["fields"]["images"] / size)


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
