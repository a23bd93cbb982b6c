"""Driver: trains the networks of an ablation that are not yet trained, measures them, and gathers.

Every step of it is a training or a measurement in a folder of its own, so the same call goes on
wherever it was stopped, and several machines with one folder can each take some networks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray

from vitcnn import parallel, results, storage, training
from vitcnn.ablations import budget
from vitcnn.ablations import plan as plans
from vitcnn.ablations.gather import gather
from vitcnn.ablations.plan import DIVERGED, Network, Plan
from vitcnn.ablations.summaries import summarised
from vitcnn.config import BASELINE, check_measurement
from vitcnn.engine.analyze import analyze
from vitcnn.engine.groups import check_group
from vitcnn.engine.jobs import load_source, plan_jobs
from vitcnn.model import Model, load
from vitcnn.results import workdir as run_folder
from vitcnn.results.datasets import variable

TRAININGS = "trainings"  # the Result about the trainings themselves


def ablate(
    config: Any, workdir: Any, *, run: str = "", progress: bool = True
) -> dict[str, xarray.Dataset]:
    """Trains the networks of an ablation, measures them, and compares the runs over seeds.

    Args:
      config: fields of `vitcnn.config.Ablation`; `configs/ablations/` has examples.
      workdir: folder of the ablation; see `vitcnn.ablations.plan`.
      run: "run" or "run/seed" to train only these networks, and to measure none.
      progress: whether to show the budget, and bars with rate and ETA.

    Returns:
      Name of the analysis -> Dataset with the dimensions run and seed, see
      `vitcnn.ablations.gather`; and "trainings", what the trainings are and whether they diverged.
      {} for chosen networks.

    Raises:
      ValueError: anything in the config that is unknown or does not fit, before the first step.
      Stopped: SIGTERM or SIGINT (Ctrl-C) came; the state is saved, and the same call goes on.
    """
    plan = plans.make(config, workdir)
    chosen = plan.chosen(run) if run else plan.networks
    costs = budget.costs(plan)
    _check_measurement(plan)
    _check_origins(plan, chosen)
    show = progress and parallel.host()[0] == 0
    if show:
        print(budget.text(plan, costs, chosen), flush=True)
    if parallel.host()[0] == 0:
        storage.write_json(plan.workdir / run_folder.RECORD, plan.record)
    for i, network in enumerate(chosen, 1):
        _train(plan, network, f"{i} of {len(chosen)}", show, progress)
    if run:
        return {}
    notes = {network: plan.diverged(network) for network in plan.networks}
    lost = {network: note for network, note in notes.items() if note}
    gathered = {
        TRAININGS: _trainings(plan, lost, costs),
        **_measured(plan, lost, show, progress),
    }
    if parallel.host()[0] == 0:
        for name, result in gathered.items():
            results.save(result, plan.workdir / f"{name}.nc")
    return gathered


def networks(config: Any, workdir: Any) -> list[Network]:
    """Returns the networks of an ablation, each after the one from whose weights it starts.

    Args:
      config, workdir: as for `ablate`; nothing is trained, and the workdir is claimed.
    """
    return plans.make(config, workdir).networks


def _check_origins(plan: Plan, chosen: list[Network]) -> None:
    """Raises ValueError if a network starts from one that is neither trained nor about to be."""
    for network in chosen:
        origin = plan.origin(network)
        if origin and origin not in chosen and not plan.is_trained(origin):
            raise ValueError(
                f"{network} starts from the weights of {origin}, which is not trained yet: run "
                f"--run={origin} first"
            )


def _check_measurement(plan: Plan) -> None:
    """Raises ValueError if the images or the analyses do not fit the networks of every run."""
    config = plan.config
    if not config.analyses:
        raise ValueError("config.analyses is empty: name at least one, such as accuracy")
    check_measurement(_measurement(plan, {}, dict(config.analyses)))
    images = load_source(config.data)
    check_group(config.group, len(images), "the ablation", field="config.group")
    stages = {name: load_source(config.stages[name].data) for name in sorted(config.stages)}
    loaded: dict[str, Model] = {}
    for run in plan.runs:
        compared = plan.compared(Network(run, 0))
        models = {}
        for name, network in compared.items():
            fields = config.runs[network.run].model
            key = fields.to_json()
            if key not in loaded:
                loaded[key] = load(**{**fields.to_dict(), "new_head": False}, weights=None)
            models[name] = loaded[key]
        earlier: dict[str, Any] = {}
        for stage, source in stages.items():
            jobs, where = config.stages[stage].analyses, f"config.stages.{stage}."
            of_model = {"model": models["model"]}
            plan_jobs(of_model, source, jobs, config.group, earlier, where, stages)
            earlier[stage] = jobs
        jobs = _jobs(plan, compared)
        try:
            plan_jobs(models, images, jobs, config.group, earlier, stage_sources=stages)
        except ValueError as error:
            raise ValueError(f"run {run}: {error}") from error


def _jobs(plan: Plan, compared: Mapping[str, Network]) -> dict[str, Any]:
    """Returns the analyses whose networks are all there."""
    return {
        name: fields
        for name, fields in plan.config.analyses.items()
        if set(fields.models) <= set(compared)
    }


def _train(plan: Plan, network: Network, place: str, show: bool, progress: bool) -> None:
    """Trains a network, unless it is trained; a training that diverges leaves a note."""
    if plan.is_trained(network) or plan.diverged(network):
        return
    origin = plan.origin(network)
    if origin and plan.diverged(origin):
        _note(plan, network, f"{origin}, from which it starts, diverged")
        return
    if show:
        print(f"training {network} ({place})", flush=True)
    try:
        training.train(plan.training(network), plan.folder(network), progress=progress)
    except FloatingPointError as error:
        if show:
            print(f"{network} diverged: {error}", flush=True)
        _note(plan, network, str(error))


def _note(plan: Plan, network: Network, error: str) -> None:
    """Notes on host 0 that a network diverged, so that its training is not tried again."""
    if parallel.host()[0] == 0:
        storage.make_folder(plan.folder(network))
        storage.write_json(plan.folder(network) / DIVERGED, {"error": error})
    parallel.barrier("diverged")


def _measurement(plan: Plan, models: Mapping[str, Any], jobs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of a measurement of networks of the ablation."""
    config = plan.config
    return {
        "models": dict(models),
        "data": config.data,
        "analyses": dict(jobs),
        "stages": config.stages,
        "group": config.group,
        "precision": config.precision,
        **{name: config.baseline[name] for name in ("threads", "workers", "prefetch")},
    }


def _measured(
    plan: Plan, lost: Mapping[Network, str], show: bool, progress: bool
) -> dict[str, xarray.Dataset]:
    """Measures all networks, and returns the Results over runs and seeds by analysis.

    Args:
      plan: the ablation.
      lost: the networks that diverged, and why.
      show, progress: whether to show lines, and bars.
    """
    config = plan.config
    by_job: dict[str, dict[Network, xarray.Dataset]] = {name: {} for name in config.analyses}
    there = [network for network in plan.networks if network not in lost]
    for i, network in enumerate(there, 1):
        compared = {k: n for k, n in plan.compared(network).items() if n not in lost}
        jobs = _jobs(plan, compared)
        if not jobs:
            continue
        if show:
            print(f"measuring {network} ({i} of {len(there)})", flush=True)
        used = {name for fields in jobs.values() for name in fields.models}
        models = {
            name: {
                "family": config.runs[n.run].model.family,
                "variant": config.runs[n.run].model.variant,
                "weights": str(plan.folder(n)),
            }
            for name, n in compared.items()
            if name in used
        }
        measured = analyze(
            _measurement(plan, models, jobs), plan.measurement(network), progress=progress
        )
        for name, fields in jobs.items():
            result = measured.get(name, measured.get(f"{name}.model"))
            if result is not None:  # images without labels or boxes leave an analysis out
                by_job[name][network] = summarised(fields.analysis, result)
    record = {"warnings": _warnings(plan, lost, by_job)}
    return {name: gather(plan, of, name, record) for name, of in by_job.items() if of}


def _warnings(
    plan: Plan,
    lost: Mapping[Network, str],
    by_job: Mapping[str, Mapping[Network, xarray.Dataset]],
) -> list[str]:
    """Returns what makes the ablation void, and which networks diverged."""
    messages = [f"{network} diverged: {note}" for network, note in lost.items()]
    accuracies = [
        float(result.top1)
        for name, of in by_job.items()
        if plan.config.analyses[name].analysis == "accuracy"
        for network, result in of.items()
        if network.run == BASELINE
    ]
    least = plan.config.least_accuracy
    if least and not (accuracies and np.mean(accuracies) >= least):
        reached = f"{100 * np.mean(accuracies):.1f}%" if accuracies else "unknown"
        messages.append(
            f"VOID: the accuracy of the baseline is {reached}, below the {100 * least:.0f}% from "
            "which differences have a meaning"
        )
    return messages


def _trainings(
    plan: Plan, lost: Mapping[Network, str], costs: Mapping[str, budget.Cost]
) -> xarray.Dataset:
    """Returns what the trainings are, and which of them diverged."""
    shape = (len(plan.runs), plan.config.seeds)
    diverged = np.zeros(shape, np.int8)
    for network in plan.networks:
        diverged[plan.runs.index(network.run), network.seed] = network in lost
    of = [costs[run] for run in plan.runs]
    dataset = xarray.Dataset(
        {
            "diverged": variable(("run", "seed"), diverged, "whether the training diverged", None),
            "parameters": variable("run", [c.parameters for c in of], "parameters", None),
            "steps": variable("run", [c.steps for c in of], "steps", None),
            "training_images": variable("run", [c.images for c in of], "training images", None),
            "flops": variable(
                "run", [c.flops for c in of], "operations of a training", "FLOP", estimate=False
            ),
        },
        {"run": list(plan.runs), "seed": np.arange(plan.config.seeds)},
    )
    origin = {
        "analysis": "ablation",
        "ablation": plan.config.name,
        "name": TRAININGS,
        "configs": {run: plan.config.runs[run].to_dict() for run in plan.runs},
        "written": time.strftime("%Y-%m-%d"),
        "models": {},
        "data": {},
        "fields": {},
        "warnings": [],
    }
    return results.stamp(dataset, origin)
