"""Claims: what the paper says, asked of the models that were measured. One claim a file.

Adding a file to this folder registers a claim. A claim is

    NUMBER = "1"                     # of the claim
    STATEMENT = "..."                # the claim, of ViTs and CNNs in general
    SOURCE = "Fig. 1"                # figure of the paper
    DEFINITION = "..."               # how its effect is computed, in words
    ANALYSIS = "cka"                 # the analysis whose Results it reads
    KINDS = ("vit", "cnn")           # it asks of every choice of one model of each kind
    FURTHER = ()                     # further analyses whose Results it reads if they are there

    def measure(results, vit, cnn): ...   # name of a model -> its Result -> Effect, or None

`results` holds the Results of one run of the analysis by model; models that were measured together
share one Result. With FURTHER, `measure` has one more argument, analysis -> name of a model
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

The twelve `vitcnn.verdicts.QUESTIONS` were named before anything was measured. With so many, some
interval misses zero by chance; the p-values of these claims are therefore corrected (Holm 1979) for
the twelve, or for more if more models are asked or more Results read. Other claims are not
corrected, and are hints.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np
import xarray

from vitcnn import lookup, verdicts
from vitcnn.config import BASELINE
from vitcnn.results import datasets
from vitcnn.verdicts import Claim, Effect

__all__ = ["all_claims"]


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
                    claims.append(verdicts.judge(claim, effect, origins, models))
        if hasattr(claim, "ANALYSIS"):
            claims += _of_models(claim, results)
            claims += _of_seeds(claim, results)
    claims.sort(key=verdicts.place)
    return verdicts.corrected(claims)


def _of_models(claim: ModuleType, results: Mapping[str, xarray.Dataset]) -> Iterator[Claim]:
    """Yields a claim for every choice of single models."""
    runs = {analysis: list(_runs(results, analysis)) for analysis in getattr(claim, "FURTHER", ())}
    for folder, run in _runs(results, claim.ANALYSIS):
        kinds = {model: _kind(result, model) for model, result in run.items()}
        further = {
            analysis: {m: r for other, of in pairs if other == folder for m, r in of.items()}
            for analysis, pairs in runs.items()
        }
        for models in _choices(claim, kinds):
            effect = _measure(claim, run, models, further)
            if effect is not None:
                origins = [datasets.provenance(run[model]) for model in models]
                yield verdicts.judge(claim, effect, origins, models)


def _of_seeds(claim: ModuleType, results: Mapping[str, xarray.Dataset]) -> Iterator[Claim]:
    """Yields a claim for every choice of runs of ablations, each measured for every seed."""
    of_analysis = {name: {} for name in (claim.ANALYSIS, *getattr(claim, "FURTHER", ()))}
    kinds: dict[str, str] = {}
    for path, result in results.items():
        origin = datasets.provenance(result)
        analysis = origin.get("fields", {}).get("analysis") if "ablation" in origin else None
        if analysis not in of_analysis or not {"run", "seed"} <= set(result.dims):
            continue
        folder = path.rpartition("/")[0] or origin["ablation"]
        of_runs = {run: record.get("kind", "") for run, record in origin["models"].items()}
        for run, kind in of_runs.items():
            if run == BASELINE or kind != of_runs.get(BASELINE):
                kinds[f"{folder}:{run}"] = kind
                of_analysis[analysis].setdefault(f"{folder}:{run}", result.sel(run=run))
    of_claim = of_analysis.pop(claim.ANALYSIS)
    kinds = {model: kind for model, kind in kinds.items() if model in of_claim}
    for models in _choices(claim, kinds):
        seeds = min(of_claim[model].sizes["seed"] for model in models)
        effects = []
        for seed in range(seeds):
            run = {model: of_claim[model].isel(seed=seed) for model in models}
            further = {
                analysis: {m: r.isel(seed=seed) for m, r in of.items() if r.sizes["seed"] > seed}
                for analysis, of in of_analysis.items()
            }
            effects.append(_measure(claim, run, models, further))
        if seeds and None not in effects:
            errors = np.array([effect.error for effect in effects])
            values = np.array([effect.value for effect in effects])
            first = effects[0]
            effect = verdicts.over_seeds_effect(values, first.name, first.note, errors)
            effect = dataclasses.replace(effect, undefined=first.undefined)
            origins = [datasets.provenance(of_claim[model]) for model in models]
            yield verdicts.judge(claim, effect, origins, models)


def _choices(claim: ModuleType, kinds: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yields every choice of one model of each kind that a claim asks of, no model twice."""
    of_kind = [[m for m, kind in kinds.items() if kind == wanted] for wanted in claim.KINDS]
    for models in itertools.product(*of_kind):
        if len(set(models)) == len(models):
            yield models


def _measure(
    claim: ModuleType,
    run: Mapping[str, xarray.Dataset],
    models: Sequence[str],
    further: Mapping[str, Mapping[str, xarray.Dataset]],
) -> Effect | None:
    if getattr(claim, "FURTHER", ()):
        return claim.measure(run, *models, further)
    return claim.measure(run, *models)


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


def _kind(result: xarray.Dataset, model: str) -> str:
    """Returns the kind of a model; Results from before models had kinds have none, ""."""
    return datasets.provenance(result)["models"][model].get("kind", "")
