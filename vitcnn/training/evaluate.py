"""Evaluations during training: engine jobs on the network so far, at chosen steps.

The programs of an evaluation are compiled at its first run and used again for all others. Its
numbers are appended to evaluations.jsonl, one line a run, and its Results are saved as
evaluations/<name>/<step>/<analysis>.nc with the coordinate `step`; `vitcnn.results.load_steps`
reads those of all steps at once. The line is written last, so an evaluation that was interrupted
runs again when the training is resumed.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import tqdm
import xarray
from ml_collections import ConfigDict

from vitcnn import checkpoints, parallel, results, storage
from vitcnn.engine import identity
from vitcnn.engine.clock import Clock
from vitcnn.engine.jobs import Job, continued, load_source, plan_jobs
from vitcnn.engine.stream import RunSettings, measure, trace
from vitcnn.model import Model, load
from vitcnn.recipe.durations import Duration
from vitcnn.results import environment
from vitcnn.results import workdir as run_folder
from vitcnn.storage import Path
from vitcnn.training import state as states

FILE = "evaluations.jsonl"
FOLDER = "evaluations"
SNAPSHOTS = checkpoints.SNAPSHOTS
_MODEL, _INITIAL, _FINAL, _RAW = "model", "initial", "final", "raw"

Resolve = Callable[[Duration, str], int]
Variables = Mapping[str, Any]


def moments(every: Any, resolve: Resolve, total: int, where: str) -> frozenset[int]:
    """Returns the steps after which something happens during training.

    Args:
      every: duration between two of them, which also gives step 0 and the last step; or several
        durations, as a tuple or as text with commas.
      resolve: (duration, name of its field) -> steps.
      total: number of steps of the training.
      where: name of the field.

    Raises:
      ValueError: a duration is no duration, or longer than the training.
    """
    several = every.split(",") if isinstance(every, str) and "," in every else every
    if isinstance(several, tuple | list):
        steps = {resolve(duration, where) for duration in several}
        if steps and max(steps) > total:
            raise ValueError(f"{where} = {every!r}: the training has only {total} steps")
        return frozenset(steps)
    period = resolve(several, where)
    return frozenset({*range(0, total, period), total} if period else ())


@dataclasses.dataclass(frozen=True)
class _Pass:
    """One pass over images: a stage of an evaluation, or its main analyses (stage "")."""

    stage: str
    source: Any
    jobs: Sequence[Job]
    settings: RunSettings
    kept: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """Returns what decides the numbers of the pass, apart from the network."""
        return {
            **identity.images_record(self.source, self.jobs, self.settings.seed),
            "classes": identity.classes_record(self.source, self.jobs),
        }


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """One evaluation of the config.

    Attributes:
      name: its name in the config.
      steps: the steps after which it runs.
      passes: its stages, then the main analyses.
      models: name -> model; the variables are set before each run.
      records: stage -> `record` of its pass.
    """

    name: str
    steps: frozenset[int]
    passes: Sequence[_Pass]
    models: Mapping[str, Model]
    records: Mapping[str, Any]

    def needs(self, name: str) -> bool:
        """Returns whether an analysis reads a model."""
        return any(name in job.taps for each in self.passes for job in each.jobs)

    def run(
        self, variables: Mapping[str, Variables], step: int
    ) -> tuple[dict[str, xarray.Dataset], float]:
        """Runs all passes.

        Args:
          variables: name of a model -> its variables.
          step: number of steps that have been taken.

        Returns:
          The Results of the main analyses, with provenance and the coordinate `step`; and the share
          of the time in which the devices waited for images.
        """
        waited, took = 0.0, 1e-9
        for name, values in variables.items():
            self.models[name].variables = values
        models = {}
        for name, model in self.models.items():
            at = {"step": step} if name in (_MODEL, _RAW) else {}
            weights = {"format": "training", "as": name, **at}
            models[name] = {**model.provenance, "weights": weights}
        earlier: dict[str, dict[str, Any]] = {}
        for each in self.passes:
            continued_from = continued(each.jobs, earlier)
            measured = measure(
                {name: self.models[name] for name in variables},
                each.source,
                each.jobs,
                each.settings,
                earlier=continued_from,
                show_progress=False,
                kept=each.kept,
                clock=(clock := Clock()),
            )
            waited, took = waited + clock.waited, took + clock.seconds
            record = {
                **self.records[each.stage],
                "models": models,
                "config": dataclasses.asdict(each.settings),
                "versions": environment.versions(),
                "devices": parallel.device_kind(),
            }
            earlier[each.stage] = identity.stamped(measured, each.jobs, record, continued_from)
        for model in self.models.values():  # the next step overwrites its arrays
            model.variables = jax.eval_shape(lambda model=model: model.variables)
        measured = {name: data.assign_coords(step=step) for name, data in earlier[""].items()}
        return measured, waited / took


class Evaluations:
    """All evaluations and snapshots of a training run.

    Args:
      config: a checked training config.
      model: the network.
      workdir: folder of the run.
      total: number of steps of the run.
      resolve: (duration, name of its field) -> steps.
      show: whether a line is shown for every evaluation.

    Raises:
      ValueError: an evaluation does not fit its data or the network.
    """

    def __init__(
        self,
        config: ConfigDict,
        model: Model,
        workdir: Path,
        total: int,
        resolve: Resolve,
        show: bool,
    ):
        self._model, self._workdir, self._total, self._show = model, workdir, total, show
        self._writes = parallel.host()[0] == 0
        self._done: set[tuple[int, str]] = set()  # (step, name) of the evaluations that have run
        self._all = [
            _plan(name, fields, model, config, total, resolve)
            for name, fields in config.evaluations.items()
        ]
        self._now = [each for each in self._all if not each.needs(_FINAL)]
        self._later = [each for each in self._all if each.needs(_FINAL)]
        self._snapshots = moments(config.snapshots, resolve, total, "config.snapshots")
        self._snapshots |= frozenset().union(*(each.steps for each in self._later))

    def record(self) -> dict[str, Any]:
        """Returns what decides the numbers of the evaluations, for run.json."""
        record = {}
        for each in self._all:
            stages = {stage: of for stage, of in each.records.items() if stage}
            record[each.name] = {**each.records[""], "stages": stages}
        return record

    def start(self, first: int, is_new: bool, variables: Callable[[], Variables]) -> None:
        """Forgets what comes after a checkpoint, and keeps the weights before the first step.

        Args:
          first: number of steps that have been taken.
          is_new: whether the run starts, and is not resumed.
          variables: returns the variables of the network.
        """
        if self._writes:
            run_folder.cut_log(self._workdir / FILE, "step", first)
        lines = (run_folder.read_log(self._workdir / FILE) or ()) if self._writes else ()
        done = parallel.agree([[line["step"], line["evaluation"]] for line in lines])
        self._done = {(step, name) for step, name in done}
        if is_new and any(each.needs(_INITIAL) for each in self._all):
            self._keep(_INITIAL, variables())

    def due(self, step: int) -> bool:
        """Returns whether anything is to be done after a step."""
        return step in self._snapshots or any(step in each.steps for each in self._now)

    def run(
        self, step: int, variables: Callable[[], Variables], raw: Callable[[], Variables]
    ) -> dict[str, float]:
        """Runs the evaluations that are due after a step, and keeps a snapshot if one is due.

        Args:
          step: number of steps that have been taken.
          variables: returns the variables of the network.
          raw: returns the variables without the average.

        Returns:
          All numbers, by evaluation, analysis and variable.
        """
        if step in self._snapshots:
            self._keep(step, variables())
        numbers = {}
        for each in self._now:
            if step in each.steps and (step, each.name) not in self._done:
                sources = {_MODEL: variables, _RAW: raw, _INITIAL: lambda: self._load(_INITIAL)}
                chosen = {n: source() for n, source in sources.items() if each.needs(n)}
                numbers |= self._run(each, chosen, step)
        return numbers

    def finish(self, variables: Variables) -> dict[str, Any]:
        """Runs the evaluations that compare with the final network, once training has ended.

        Args:
          variables: of the final network.

        Returns:
          For run.json: the numbers after the last step by evaluation, and "accuracy", those of the
          first evaluation that measures the accuracy.
        """
        for each in self._later:
            for step in sorted(each.steps):
                if storage.exists(self._path(step)) and (step, each.name) not in self._done:
                    chosen = {_MODEL: self._load(step), _FINAL: variables}
                    chosen |= {_INITIAL: self._load(_INITIAL)} if each.needs(_INITIAL) else {}
                    self._run(each, chosen, step)
        record: dict[str, Any] = {}
        if self._all and self._writes:
            lines = {
                line["evaluation"]: line
                for line in run_folder.read_log(self._workdir / FILE) or ()
                if line["step"] == self._total
            }
            record["final"] = lines
            for each in self._all:
                for job in each.passes[-1].jobs:
                    if job.fields["analysis"] == "accuracy" and "accuracy" not in record:
                        record["accuracy"] = {
                            name: lines[each.name].get(f"{_short(job.name)}/{name}")
                            for name in ("top1", "nll", "images")
                        }
        return record

    def _run(
        self, each: _Evaluation, variables: Mapping[str, Variables], step: int
    ) -> dict[str, float]:
        """Runs one evaluation and saves what it measures; returns its numbers by name."""
        started = time.monotonic()
        measured, waiting = each.run(variables, step)
        numbers = {
            f"{_short(job)}/{name}": variable.item()
            for job, dataset in measured.items()
            for name, variable in dataset.data_vars.items()
            if variable.ndim == 0 and not variable.isnull()
        }
        if self._writes:
            folder = self._workdir / FOLDER / each.name / str(step)
            storage.make_folder(folder)
            for name, dataset in measured.items():
                results.save(dataset, folder / f"{name}.nc")
            seconds = round(time.monotonic() - started, 3)
            times = {"seconds": seconds, "waiting": round(waiting, 3)}
            run_folder.log_line(
                self._workdir / FILE, step=step, evaluation=each.name, **numbers, **times
            )
            shown = ", ".join(
                f"{name} {value:.4f}"
                for name, value in numbers.items()
                if name.endswith(("/top1", "/nll"))
            )
            if self._show:
                tqdm.tqdm.write(
                    f"step {step}, {each.name} ({seconds:.1f} s): {shown or 'measured'}"
                )
        self._done.add((step, each.name))
        parallel.barrier(f"evaluation {each.name} {step}")
        return {f"{each.name}/{name}": value for name, value in numbers.items()}

    def _path(self, name: int | str) -> Path:
        return self._workdir / SNAPSHOTS / f"{name}.npz"

    def _keep(self, name: int | str, variables: Variables) -> None:
        if self._writes:
            storage.make_folder(self._path(name).parent)
            states.export(self._path(name), variables, self._model)
        parallel.barrier(f"snapshot {name}")

    def _load(self, name: int | str) -> Variables:
        family, variant = (self._model.provenance[field] for field in ("family", "variant"))
        return load(family, variant, self._path(name)).variables


def _plan(
    name: str, fields: ConfigDict, model: Model, config: ConfigDict, total: int, resolve: Resolve
) -> _Evaluation:
    """Returns an evaluation, after a check that it fits its data and the network."""
    where = f"config.evaluations.{name}."
    steps = moments(fields.every, resolve, total, f"{where}every") | {total}
    if isinstance(fields.every, tuple) or "," in str(fields.every):
        steps |= {0}
    names = (_MODEL, _INITIAL, _FINAL, *((_RAW,) if config.average else ()))
    models = {name: copy.copy(model) for name in names}
    source = load_source(fields.data)
    passes, stages, opened = [], {}, {}
    for stage, part in sorted(
        [*fields.stages.items(), ("", fields)], key=lambda x: (x[0] == "", x[0])
    ):
        images = load_source(part.data) if stage and part.get("data") else source
        if not len(images):
            raise ValueError(f"{where}data: the {part.data.source} data have no images")
        analyses = {n: {"models": (_MODEL,), **a.to_dict()} for n, a in part.analyses.items()}
        group = min(fields.group, len(images))
        settings = RunSettings(
            group=group,
            seed=fields.seed,
            precision=fields.precision,
            threads=config.threads,
            workers=config.workers,
            prefetch=config.prefetch,
        )
        place = f"{where}stages.{stage}." if stage else where
        jobs = plan_jobs(models, images, analyses, group, stages, place, opened)
        used = {name: m for name, m in models.items() if any(name in job.taps for job in jobs)}
        kept = trace(used, jobs, settings)  # now, not after hours of training
        passes.append(_Pass(stage, images, jobs, settings, kept))
        stages[stage], opened[stage] = analyses, images
    records = {each.stage: each.record() for each in passes}
    return _Evaluation(name, frozenset(steps), passes, models, records)


def _short(job: str) -> str:
    return job.removesuffix(f".{_MODEL}")
