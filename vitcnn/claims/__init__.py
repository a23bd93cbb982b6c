"""Claims: what the paper says, asked of the models that were measured. One claim a file.

Adding a file to this folder registers a claim. A claim is

    NUMBER = "1"                     # of the claim
    STATEMENT = "..."                # the claim, of ViTs and CNNs in general
    SOURCE = "Fig. 1"                # figure of the paper
    DEFINITION = "..."               # how its effect is computed, in words
    ANALYSIS = "cka"                 # the analysis whose Results it reads
    KINDS = ("vit", "cnn")           # it asks of every choice of one model of each kind
    BESIDE = ()                      # further analyses whose Results it reads if they are there

    def measure(results, vit, cnn): ...   # name of a model -> its Result -> Effect, or None

`results` holds the Results of one run of the analysis by model; models that were measured together
share one Result. With BESIDE, `measure` has one more argument `beside`, analysis -> name of a model
-> Result. `measure` returns None where the claim says nothing of these models.

A claim on training is asked of an ablation. In addition to ANALYSIS and KINDS, or in their place,
it has

    ABLATION = "skips"               # the ablation whose Results it reads

    def measure_ablation(results): ...    # name of an analysis -> its Result -> Effect, or None

A claim holds when the whole interval of its effect lies above zero, does not hold when the whole
interval lies below, and otherwise the data cannot tell; it then says what would settle it.

Intervals have two sources. Over images, an interval is the estimate plus and minus 1.96 jackknife
standard errors: how far the number depends on which images were drawn, for these very networks.
Over seeds it is Student's: how far the number depends on the training run. The Results of an
ablation have both, and the verdict then rests on the interval over seeds. A claim with `measure` is
asked of the networks of an ablation too, seed by seed: of its baseline, and of runs of another kind
than the baseline's.

Claims 2 and 3 rest on the best match of a layer, the argmax of a row of CKA. An argmax jumps from
layer to layer where two layers are nearly as similar, and the jackknife of a statistic that jumps
is rough: too wide where a jump falls between blocks of images, and zero where no left-out block
changes any match. Take those intervals as a guide. How good the best of as many layers would be by
chance is measured with permuted images, and said.

The twelve `QUESTIONS` were named before anything was measured. With so many, some interval misses
zero by chance; the p-values of these claims are therefore corrected (Holm 1979) for the twelve, or
for more if more models are asked. Other claims are not corrected, and are hints.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
import itertools
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import xarray

from vitcnn import lookup
from vitcnn.config import BASELINE
from vitcnn.numerics import statistics
from vitcnn.numerics.statistics import Z, over_seeds
from vitcnn.results import datasets

__all__ = [
    "QUESTIONS",
    "Claim",
    "Effect",
    "all_claims",
    "difference",
    "judge",
    "mean_of",
    "number_of",
    "of_matches",
    "of_networks",
    "over_seeds_effect",
]

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
                effect = claim.measure_ablation(ablation)
                if effect is not None:
                    models = (f"ablation {claim.ABLATION}",)
                    origins = [datasets.provenance(result) for result in ablation.values()]
                    claims.append(judge(claim, effect, origins, models))
        if hasattr(claim, "ANALYSIS"):
            claims += _of_models(claim, results)
            claims += _of_seeds(claim, results)
    claims.sort(key=_place)
    return _corrected(claims)


def _place(claim: Claim) -> tuple:
    """Returns what claims are sorted by: the questions in their order, then figures."""
    if claim.is_question:
        return 0, QUESTIONS.index(claim.number)
    parts = re.split(r"(\d+)", claim.number)  # Fig. 5 comes before Fig. 11
    return (1, *(part.zfill(4) if part.isdigit() else part for part in parts))


def _corrected(claims: Sequence[Claim]) -> list[Claim]:
    """Returns the claims with p-values corrected for all questions.

    A question counts once for every choice of models that it was asked of, and at least once.
    """
    asked = [claim for claim in claims if claim.is_question]
    family = len(asked) + len(set(QUESTIONS) - {claim.number for claim in asked})
    corrected = iter(statistics.holm(np.array([claim.p for claim in asked]), family))
    return [
        dataclasses.replace(claim, corrected_p=float(next(corrected)))
        if claim.is_question
        else claim
        for claim in claims
    ]


def _of_models(claim: ModuleType, results: Mapping[str, xarray.Dataset]) -> Iterator[Claim]:
    """Yields a claim for every choice of single models."""
    beside = {analysis: list(_runs(results, analysis)) for analysis in getattr(claim, "BESIDE", ())}
    for folder, run in _runs(results, claim.ANALYSIS):
        kinds = {model: _kind(result, model) for model, result in run.items()}
        there = {
            analysis: {m: r for other, of in runs if other == folder for m, r in of.items()}
            for analysis, runs in beside.items()
        }
        for models in _choices(claim, kinds):
            effect = _measure(claim, run, models, there)
            if effect is not None:
                origins = [datasets.provenance(run[model]) for model in models]
                yield judge(claim, effect, origins, models)


def _of_seeds(claim: ModuleType, results: Mapping[str, xarray.Dataset]) -> Iterator[Claim]:
    """Yields a claim for every choice of runs of ablations, each measured for every seed."""
    asked = {analysis: {} for analysis in (claim.ANALYSIS, *getattr(claim, "BESIDE", ()))}
    kinds: dict[str, str] = {}
    for path, result in results.items():
        origin = datasets.provenance(result)
        analysis = origin.get("fields", {}).get("analysis") if "ablation" in origin else None
        if analysis not in asked or not {"run", "seed"} <= set(result.dims):
            continue
        folder = path.rpartition("/")[0] or origin["ablation"]
        of_runs = {run: record.get("kind", "") for run, record in origin["models"].items()}
        for run, kind in of_runs.items():
            if run == BASELINE or kind != of_runs.get(BASELINE):
                kinds[f"{folder}:{run}"] = kind
                asked[analysis].setdefault(f"{folder}:{run}", result.sel(run=run))
    of_claim = asked.pop(claim.ANALYSIS)
    kinds = {model: kind for model, kind in kinds.items() if model in of_claim}
    for models in _choices(claim, kinds):
        seeds = min(of_claim[model].sizes["seed"] for model in models)
        effects = []
        for seed in range(seeds):
            run = {model: of_claim[model].isel(seed=seed) for model in models}
            beside = {
                analysis: {m: r.isel(seed=seed) for m, r in of.items() if r.sizes["seed"] > seed}
                for analysis, of in asked.items()
            }
            effects.append(_measure(claim, run, models, beside))
        if seeds and None not in effects:
            errors = np.array([effect.error for effect in effects])
            values = np.array([effect.value for effect in effects])
            first = effects[0]
            effect = over_seeds_effect(values, first.name, first.note, errors)
            effect = dataclasses.replace(effect, undefined=first.undefined)
            origins = [datasets.provenance(of_claim[model]) for model in models]
            yield judge(claim, effect, origins, models)


def _choices(claim: ModuleType, kinds: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yields every choice of one model of each kind that a claim asks of, no model twice."""
    of_kind = [[m for m, kind in kinds.items() if kind == asked] for asked in claim.KINDS]
    for models in itertools.product(*of_kind):
        if len(set(models)) == len(models):
            yield models


def _measure(
    claim: ModuleType,
    run: Mapping[str, xarray.Dataset],
    models: Sequence[str],
    beside: Mapping[str, Mapping[str, xarray.Dataset]],
) -> Effect | None:
    more = {"beside": beside} if "beside" in inspect.signature(claim.measure).parameters else {}
    return claim.measure(run, *models, **more)


def _runs(
    results: Mapping[str, xarray.Dataset], analysis: str
) -> Iterator[tuple[str, dict[str, xarray.Dataset]]]:
    """Yields the folder and the Results by model of each run of an analysis.

    Results of one model each, as a job "localization" writes them to "localization.vit" and
    "localization.resnet", belong together if they come from one job and lie in one folder. A model
    that occurs twice there, as in a list of Results of several workdirs, begins another run.
    """
    runs: dict[tuple[str, ...], list[dict[str, xarray.Dataset]]] = collections.defaultdict(list)
    folders = {}
    for name, result in results.items():
        origin = datasets.provenance(result)
        if origin["analysis"] != analysis:
            continue
        models = list(origin["models"])
        job = origin["name"].removesuffix(f".{models[0]}")
        alone = len(models) == 1 and job != origin["name"]
        folder = name.rpartition("/")[0]
        run = (folder, job) if alone else (name,)
        folders[run] = folder
        by_model = dict.fromkeys(models, result)
        for earlier in runs[run]:
            if not earlier.keys() & by_model.keys():
                earlier |= by_model
                break
        else:
            runs[run].append(by_model)
    for run, of_run in runs.items():
        for by_model in of_run:
            yield folders[run], by_model


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
    there = np.isfinite(values)
    has_errors = errors is not None and there.any()
    image_error = float(np.mean(np.asarray(errors)[there])) if has_errors else float("nan")
    return Effect(
        numbers["mean"],
        numbers["standard_error"],
        name,
        note,
        "every seed diverged",
        "seeds",
        int(there.sum()),
        image_error,
    )


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
        many = [n for n in range(parts + 1, MANY) if _interval(deviation, n) < abs(effect.value)]
        if not many:
            return beyond.format("seeds")
        return f"If the effect is as large as it seems, about {many[0]} seeds would settle it."
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


def _kind(result: xarray.Dataset, model: str) -> str:
    """Returns the kind of a model; Results from before models had kinds have none, ""."""
    return datasets.provenance(result)["models"][model].get("kind", "")


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
