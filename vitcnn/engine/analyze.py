"""Analyze: loads models and images, runs the analyses of a config over them, saves the Results.

A config may have stages: passes over other images that come first. The analyses of the same name in
later passes continue from the Results of a stage. Each pass is one `vitcnn.engine.stream.measure`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
import xarray
from ml_collections import ConfigDict

from vitcnn import parallel, results, storage
from vitcnn.config import Measurement, check_measurement
from vitcnn.config.schema import Fields
from vitcnn.engine import identity
from vitcnn.engine.clock import Clock
from vitcnn.engine.groups import check_group
from vitcnn.engine.jobs import (
    Job,
    check_source,
    continued,
    load_models,
    load_source,
    plan_jobs,
)
from vitcnn.engine.stream import RunSettings, measure, trace
from vitcnn.model import Model
from vitcnn.results import datasets, environment
from vitcnn.results import workdir as run_folder
from vitcnn.storage import Path


def analyze(
    config: Any,
    workdir: Any,
    *,
    models: Mapping[str, Any] | None = None,
    source: Any = None,
    progress: bool = True,
) -> dict[str, xarray.Dataset]:
    """Loads models and data, runs every analysis of a config in one pass, and saves the Results.

    A run that was stopped at any moment resumes when it is started again with the same config and
    workdir. The Results of a finished run are read back.

    Args:
      config: fields of `vitcnn.config.Measurement`; `configs/analyze/` has examples.
      workdir: folder, here or in a bucket, for <analysis>.nc, run.json and the sums from which a
        stopped run resumes; each stage of the config has a sub-folder.
      models: each a `Model` in memory by name, such as a user's own, in addition to
        `config.models`.
      source: images in memory, in place of `config.data`.
      progress: whether to show a bar with rate and ETA.

    Returns:
      Name of the analysis -> Dataset. An analysis of one model at a time is named
      <analysis>.<model>. On many hosts, host 0 writes the files and every host gets the Datasets.

    Raises:
      TypeError: one of `models` is no Model.
      ValueError: anything in the config that is unknown or does not fit, with its name and the
        nearest right choice; or a workdir that belongs to another config or other weights.
      OSError: the workdir cannot be written.
    """
    config = check_measurement(config, source)
    if config.compilation_cache:
        parallel.cache_programs(storage.cache_folder() / "programs")
    own_config = {k: v for k, v in config.to_dict().items() if k not in Measurement.NEUTRAL}
    neutral = identity.neutral(config, tuple(models or ()))
    identity.check_hosts({"config": own_config}, neutral)
    workdir = run_folder.claim_workdir(workdir, {"config": own_config}, neutral)
    source = load_source(config.data) if source is None else source
    check_source(source)
    in_memory = dict(models or {})
    models = {**load_models(config.models), **in_memory}
    if not models:
        raise ValueError("config.models is empty: name at least one model")
    for name, model in models.items():
        if not isinstance(model, Model):
            raise TypeError(
                f"models[{name!r}] is a {type(model).__name__}: make a Model of your network, "
                "vitcnn.Model(module, variables, vitcnn.Preprocess(size=...))"
            )
    passes = _plan_passes(config, own_config, workdir, models, source)
    measured = {name for each_pass in passes for job in each_pass.jobs for name in job.taps}
    outside = {name for name, fields in config.models.items() if "." in fields["family"]}
    model_records = {
        name: identity.model_record(model, name in measured & {*in_memory, *outside})
        for name, model in models.items()
    }
    for each_pass in passes:
        record = each_pass.record(model_records)
        identity.check_hosts(record, neutral)
        run_folder.claim_workdir(each_pass.workdir, record, neutral)
        each_pass.check_results()
    if parallel.agree(passes[-1].finished):
        return passes[-1].load()
    settings = RunSettings.of(config)
    for later_pass in passes[1:]:  # fail now, not after the earlier passes have run
        trace(models, later_pass.jobs, settings)
    earlier: dict[str, dict[str, xarray.Dataset]] = {}
    for each_pass in passes:
        earlier[each_pass.stage] = _run(
            each_pass, settings, models, model_records, earlier, progress
        )
    return earlier[""]


@dataclasses.dataclass(frozen=True)
class _Pass:
    """One pass over images: a stage, or the main analyses (stage "").

    Attributes:
      stage: name of the stage.
      workdir: folder of its Results.
      config: the part of the config that decides its numbers.
      source: its images.
      jobs: its analyses.
      earlier: the passes before it, whose Results its analyses may continue from.
    """

    stage: str
    workdir: Path
    config: Fields
    source: Any
    jobs: Sequence[Job]
    earlier: Sequence[_Pass] = ()

    @functools.cached_property
    def images(self) -> dict[str, Any]:
        """What the images of the pass are, for run.json."""
        return identity.images_record(self.source, self.jobs, self.config["seed"])

    def record(self, model_records: Mapping[str, Any]) -> dict[str, Any]:
        """Returns everything that decides the numbers of the pass, for run.json."""
        return {
            "config": dict(self.config),
            "models": dict(model_records),
            **self.images,
            "classes": identity.classes_record(self.source, self.jobs),
            "sources": {
                job.name: {field: getattr(job.config, field) for field in ("classes", "draws")}
                for job in self.jobs
            },
            "analyses_sha256": identity.analyses_sha256(self.jobs),
            "stages": {earlier.stage: earlier.images for earlier in self.earlier},
        }

    def check_results(self) -> None:
        """Raises ValueError if the workdir holds numbers and nothing that says whose they are."""
        process, processes = parallel.host()
        if process:  # host 0 writes Results and run.json, and the hosts need not share a disk
            return
        sums = _progress_file(self.workdir, process, processes)
        orphans = [str(path) for path in (*self.paths.values(), sums) if storage.exists(path)]
        if orphans and not storage.exists(self.workdir / run_folder.RECORD):
            raise ValueError(
                f"{orphans[0]} lies there without {run_folder.RECORD}, so it may be of another "
                "run: choose another --workdir, or delete the file"
            )

    @property
    def paths(self) -> dict[str, Path]:
        """Job name -> file of its Result."""
        return {job.name: self.workdir / f"{job.name}.nc" for job in self.jobs}

    @property
    def finished(self) -> bool:
        """Whether every Result has been saved."""
        return all(storage.exists(path) for path in self.paths.values())

    def load(self) -> dict[str, xarray.Dataset]:
        """Returns the Results of host 0, on every host: the hosts need not share a disk."""
        process, processes = parallel.host()
        if processes == 1:
            return {name: results.load(path) for name, path in self.paths.items()}
        files = {}
        if process == 0:
            files = {
                f"{name}:": np.frombuffer(storage.read(path), np.uint8)
                for name, path in self.paths.items()
            }
        files = parallel.meet(files)[0]
        return {name: datasets.from_bytes(files[f"{name}:"].tobytes()) for name in self.paths}


def _plan_passes(
    config: ConfigDict,
    own_config: Mapping[str, Any],
    workdir: Path,
    models: Mapping[str, Model],
    source: Any,
) -> list[_Pass]:
    """Returns the passes of a config in their order: the stages, then the main analyses."""
    passes = []
    stages: dict[str, Any] = {}  # the analyses of the stages so far
    opened: dict[str, Any] = {}  # and their images
    for name in sorted(config.stages):
        stage = config.stages[name]
        images = load_source(stage.data) if stage.get("data") else source
        check_group(config.group, len(images), f"config.stages.{name}", field="config.group")
        where = f"config.stages.{name}."
        jobs = plan_jobs(models, images, stage.analyses, config.group, stages, where, opened)
        stage_config = {**own_config, "stages": {}, **stage.to_dict()}
        passes.append(_Pass(name, workdir / name, stage_config, images, jobs, tuple(passes)))
        stages = {**stages, name: stage.analyses}
        opened[name] = images
    check_group(config.group, len(source), "the run", field="config.group")
    jobs = plan_jobs(models, source, config.analyses, config.group, stages, stage_sources=opened)
    return [*passes, _Pass("", workdir, own_config, source, jobs, tuple(passes))]


def _run(
    current: _Pass,
    settings: RunSettings,
    models: Mapping[str, Model],
    model_records: Mapping[str, Any],
    earlier: Mapping[str, Mapping[str, xarray.Dataset]],
    progress: bool,
) -> dict[str, xarray.Dataset]:
    """Runs or resumes one pass, saves its Results and returns them by job name.

    Args:
      current: the pass.
      settings: the settings that all passes share.
      models: name -> model.
      model_records: name -> record of the model, for provenance.
      earlier: stage -> job name -> Result, of the passes before this one.
      progress: whether to show a bar.
    """
    if parallel.agree(current.finished):
        return current.load()
    process, processes = parallel.host()
    continued_from = continued(current.jobs, earlier)
    record = current.record(model_records) | {
        "versions": environment.versions(),
        "devices": parallel.device_kind(),
    }
    if process == 0:
        storage.write_json(current.workdir / run_folder.RECORD, record)
    parallel.barrier("workdir claimed")
    progress_file = _progress_file(current.workdir, process, processes)
    if progress and process == 0 and earlier:
        tqdm.tqdm.write(f"stage {current.stage!r}" if current.stage else "main analyses")
    started, clock = time.monotonic(), Clock()
    measured = measure(
        models,
        current.source,
        current.jobs,
        settings,
        earlier=continued_from,
        progress_file=progress_file,
        show_progress=progress and process == 0,
        clock=clock,
    )
    measured = identity.stamped(measured, current.jobs, record, continued_from)
    if process == 0:  # the hosts need not share a disk
        for name, path in current.paths.items():
            results.save(measured[name], path)
            measured[name] = results.load(path)
        images = {job.name: job.images for job in current.jobs}
        seconds = round(time.monotonic() - started, 1)
        record |= {"images": images, "seconds": seconds, "waiting": round(clock.share, 3)}
        storage.write_json(current.workdir / run_folder.RECORD, record)
    parallel.barrier("results saved")
    storage.remove(progress_file)
    return measured


def _progress_file(workdir: Path, process: int, processes: int) -> Path:
    """Returns the file from which this host resumes.

    Raises:
      ValueError: a run of another number of hosts has left its files there.
    """
    path = workdir / f"sums.{process}of{processes}.npz"
    for other in workdir.glob("sums.*of*.npz"):
        if other.name.split("of")[1] != path.name.split("of")[1]:
            raise ValueError(
                f"{other} was saved by a run on another number of hosts; resume on that number, or "
                "delete the file to start again"
            )
    return path
