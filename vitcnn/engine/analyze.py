"""The engine: loads models and images, runs the analyses of a config over them, saves the Results.

A config may have stages: passes over other images that come first, whose Results the analyses of
the same name go on from. Each pass is one `vitcnn.engine.stream.measure`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
import xarray
from ml_collections import ConfigDict

from vitcnn import parallel, results, storage
from vitcnn.config import Measurement, check_measurement
from vitcnn.engine.jobs import Job, load_models, load_source, plan_jobs
from vitcnn.engine.stream import measure, trace
from vitcnn.model import Model
from vitcnn.results import datasets, environment
from vitcnn.results import workdir as run_folder


def analyze(
    config: Any,
    workdir: Any,
    *,
    models: Mapping[str, Model] | None = None,
    source: Any = None,
    progress: bool = True,
) -> dict[str, xarray.Dataset]:
    """Loads models and data, runs every analysis of a config in one pass, and saves the results.

    A run that was stopped at any moment goes on where it was when it is started again with the same
    config and workdir, and a finished one is read back.

    Args:
      config: fields of `vitcnn.config.Measurement`; `configs/analyze/` has examples.
      workdir: folder for <analysis>.nc, run.json and the state that a stopped run resumes from;
        each stage of the config has a folder of its own in it.
      models: ready models by name, such as a user's own, beside those of `config.models`.
      source: ready images, in place of `config.data`.
      progress: whether to show progress with rate and ETA.

    Returns:
      Name of the analysis -> Dataset. An analysis of one model at a time is named
      <analysis>.<model>. On many hosts, host 0 writes the files and every host gets the Datasets.

    Raises:
      ValueError: anything in the config that is unknown or does not fit, named, with the nearest
        right choice; or a workdir that belongs to another config or other weights.
      OSError: the workdir cannot be written.
    """
    config = check_measurement(config, source)
    identity = {k: v for k, v in config.to_dict().items() if k not in Measurement.NEUTRAL}
    workdir = run_folder.claim_workdir(workdir, {"config": identity})
    source = load_source(config.data) if source is None else source
    models = {**load_models(config.models), **(models or {})}
    if not models:
        raise ValueError("config.models is empty: name at least one model")
    described = {name: _describe(model) for name, model in models.items()}
    seen: dict[str, Any] = {}
    passes = []
    for name in sorted(config.stages):
        stage = config.stages[name]
        settings = {**identity, "stages": {}, **stage.to_dict()}
        images = load_source(stage.data) if stage.get("data") else source
        where = f"config.stages.{name}."
        jobs = plan_jobs(models, images, stage.analyses, config.group, seen, where)
        passes.append(_Pass(name, workdir / name, settings, images, jobs))
        seen = {**seen, name: stage.analyses}
    jobs = plan_jobs(models, source, config.analyses, config.group, seen)
    passes.append(_Pass("", workdir, identity, source, jobs))
    for one in passes:
        run_folder.claim_workdir(one.workdir, one.run(described))
    if parallel.agree(passes[-1].finished):
        return passes[-1].load()
    for one in passes[1:]:  # a mistake in these must not come out when the ones before are done
        trace(models, one.jobs, config.group, config.max_sums_gb)
    found: dict[str, dict[str, xarray.Dataset]] = {}
    for one in passes:
        found[one.stage] = _run(one, config, models, described, found, progress)
    return found[""]


@dataclasses.dataclass(frozen=True)
class _Pass:
    """A stage of a config, or (stage "") what comes behind them all: one pass over its images."""

    stage: str
    workdir: pathlib.Path
    settings: Mapping[str, Any]
    source: Any
    jobs: Sequence[Job]

    def run(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what decides its numbers."""
        data = dict(self.source.provenance)
        return {"config": dict(self.settings), "models": dict(described), "data": data}

    @property
    def paths(self) -> dict[str, pathlib.Path]:
        """Where its Results are, by name."""
        return {job.name: self.workdir / f"{job.name}.nc" for job in self.jobs}

    @property
    def finished(self) -> bool:
        """Whether all Results are there."""
        return all(path.is_file() for path in self.paths.values())

    def load(self) -> dict[str, xarray.Dataset]:
        """Returns the Results of host 0, on every host: the hosts need not share a disk."""
        process, processes = parallel.host()
        if processes == 1:
            return {name: results.load(path) for name, path in self.paths.items()}
        files = {}
        if process == 0:
            files = {f"{n}:": np.fromfile(path, np.uint8) for n, path in self.paths.items()}
        sent = parallel.meet(files)[0]
        return {name: datasets.from_bytes(sent[f"{name}:"].tobytes()) for name in self.paths}


def _run(
    one: _Pass,
    config: ConfigDict,
    models: Mapping[str, Model],
    described: Mapping[str, Any],
    before: Mapping[str, Mapping[str, xarray.Dataset]],
    progress: bool,
) -> dict[str, xarray.Dataset]:
    """Runs one leg, or goes on with it, saves its Results and returns them.

    Args:
      one: what to run.
      config: settings that all passes share.
      models: name -> model.
      described: their provenance.
      before: Results of the passes before, by stage and name.
      progress: whether to show progress.
    """
    if parallel.agree(one.finished):
        return one.load()
    process, processes = parallel.host()
    given = {
        job.name: {s: found[job.name] for s, found in before.items() if job.name in found}
        for job in one.jobs
        if job.traits.stages
    }
    run = one.run(described) | {
        "versions": environment.versions(),
        "devices": parallel.device_kind(),
    }
    if process == 0:
        storage.write_json(one.workdir / "run.json", run)
    parallel.barrier("workdir claimed")
    state = one.workdir / f"sums.{process}of{processes}.npz"
    for other in one.workdir.glob("sums.*of*.npz"):
        if other.name.split("of")[1] != state.name.split("of")[1]:
            raise ValueError(
                f"{other} was saved by a run of another number of hosts; go on with that number, "
                "or delete it to begin again"
            )
    if progress and process == 0 and before:
        tqdm.tqdm.write(f"stage {one.stage!r}" if one.stage else "the analyses themselves")
    started = time.monotonic()
    measured = measure(
        models,
        one.source,
        one.jobs,
        group=config.group,
        seed=config.seed,
        precision=config.precision,
        max_sums_gb=config.max_sums_gb,
        save_every_s=config.save_every_s,
        given=given,
        state=state,
        progress=progress and process == 0,
    )
    for job in one.jobs:
        said = measured[job.name].attrs.pop("warnings", [])
        known = _provenance(job, run, given.get(job.name, {}), said)
        measured[job.name] = results.stamp(measured[job.name], known)
    if process == 0:  # the hosts need not share a disk
        for name, path in one.paths.items():
            results.save(measured[name], path)
            measured[name] = results.load(path)
        images = {job.name: job.images for job in one.jobs}
        run |= {"images": images, "seconds": round(time.monotonic() - started, 1)}
        storage.write_json(one.workdir / "run.json", run)
    parallel.barrier("results saved")
    state.unlink(missing_ok=True)
    return measured


def _describe(model: Model) -> dict[str, Any]:
    """Returns the origin of a model and what tells it from any other, a user's own included."""
    return {
        **model.provenance,
        "kind": model.kind,
        "preprocess": model.preprocess.to_dict(),
        "variables_sha256": model.digest(),
    }


def _provenance(
    job: Job,
    run: Mapping[str, Any],
    given: Mapping[str, xarray.Dataset],
    said: Sequence[str],
) -> dict[str, Any]:
    """Returns what a reader of one result needs to know of how it came about."""
    earlier = {stage: results.provenance(result) for stage, result in given.items()}
    return {
        "analysis": job.fields["analysis"],
        "name": job.name,
        "fields": job.fields,
        "models": {name: run["models"][name] for name in job.taps},
        "data": run["data"],
        "group": run["config"]["group"],
        "seed": run["config"]["seed"],
        "precision": run["config"]["precision"],
        "versions": run["versions"],
        "devices": run["devices"],
        "warnings": said,
        **({"stages": earlier} if earlier else {}),
    }
