"""Start: what a training run is and where it begins, checked before any long work.

A run begins with the first of these that there is:

1. the last checkpoint in its own workdir: it was stopped, and goes on as if it had not been;
2. the whole state of another run (`config.resume_from`), to train it longer or to cool it down;
3. weights (`config.init_from`), with a new head or resized positions if `config.model` says so;
4. random weights.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from vitcnn import checkpoints, models, parallel, storage
from vitcnn.config import Training, check_training
from vitcnn.config.schema import Fields
from vitcnn.data import augment, content, resident
from vitcnn.engine import identity
from vitcnn.engine.jobs import load_source
from vitcnn.model import Model, load
from vitcnn.recipe import durations, losses, optimizers, schedules
from vitcnn.results import environment
from vitcnn.results import workdir as run_folder
from vitcnn.storage import Path
from vitcnn.training import state as states
from vitcnn.training.checkpoints import Checkpoints, shapes
from vitcnn.training.evaluate import Evaluations, Resolve
from vitcnn.training.log import FILE as LOG
from vitcnn.training.state import TrainState

FINISHED = "finished"  # the last key that is written to run.json


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run, resolved and checked.

    Attributes:
      config: the checked config.
      workdir: its folder.
      source: the training images.
      model: the network; its variables are those before the first step.
      optimizer: an optax transformation.
      schedule: step -> factor of the learning rate.
      total: number of steps.
      every: "log_every", "checkpoint_every" and "keep_every" in steps.
      evaluations: the evaluations and snapshots.
      on_device: whether the images lie on the devices as a whole.
      record: what run.json says.
    """

    config: ConfigDict
    workdir: Path
    source: Any
    model: Model
    optimizer: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    total: int
    every: Mapping[str, int]
    evaluations: Evaluations
    on_device: bool
    record: dict[str, Any]

    def first_state(self) -> TrainState:
        """Returns the state before the first step of a run from weights."""
        return states.first(self.model.variables, self.optimizer, bool(self.config.average))

    def write_record(self) -> None:
        """Writes run.json, on host 0."""
        if parallel.host()[0] == 0:
            storage.write_json(self.workdir / run_folder.RECORD, self.record)


def finished(workdir: Path) -> bool:
    """Returns whether the run of a workdir has ended, which run.json says last of all."""
    record = storage.read_json(workdir / run_folder.RECORD)
    return parallel.agree(record is not None and FINISHED in record)


def prepare(config: Any, workdir: Any, show: bool) -> Run | Model:
    """Checks a config, its images, its network and its workdir, and claims the workdir.

    Args:
      config: fields of `vitcnn.config.Training`.
      workdir: folder of the run.
      show: whether evaluations are shown.

    Returns:
      The run; or its model, if the run has ended before.

    Raises:
      ValueError: anything that is unknown or does not fit.
      OSError: the workdir cannot be written.
    """
    config = check_training(config)
    if config.compilation_cache:
        parallel.cache_programs(storage.cache_folder() / "programs")
    own_config = {k: v for k, v in config.to_dict().items() if k not in Training.NEUTRAL}
    neutral = identity.neutral(config)
    of_all_hosts = {k: v for k, v in config.to_dict().items() if k not in Training.PER_HOST}
    identity.check_hosts({"config": of_all_hosts}, neutral)
    workdir = run_folder.claim_workdir(workdir, {"config": own_config}, neutral)
    workdir = storage.absolute(workdir)
    run_folder.check_shared(workdir)
    _check_orphans(workdir)
    source = open_labelled(config.data)
    images = {
        "data": content.describe(source),
        "images_sha256": identity.source_sha256(source),
    }
    run_folder.claim_workdir(workdir, {"config": own_config, **images}, neutral)
    if finished(workdir):
        return load(config.model.family, config.model.variant, weights=workdir)
    total, every, resolve = lengths(config, source)
    schedule = schedules.make(config.schedule, total, resolve)
    optimizer = optimizers.make(config, schedule)
    model = _model(config, workdir)
    _check_classes(model, source)
    if "class_names" in images["data"]:  # of the logits, from now on
        model.provenance = {**model.provenance, "class_names": images["data"]["class_names"]}
    jax.eval_shape(optimizer.init, model.variables["params"])  # checks the patterns of the config
    chain = augment.parse(config.augment)
    augment.check(chain, model.preprocess)
    read = config.batch / config.repeats * total  # images, in all steps
    on_device = resident.suits(config.on_device, source, model.preprocess, chain, read)
    evaluations = Evaluations(config, model, workdir, total, resolve, show)
    images["evaluations"] = evaluations.record()
    identity.check_hosts({"config": own_config, "model": dict(model.provenance), **images}, neutral)
    run_folder.claim_workdir(workdir, {"config": own_config, **images}, neutral)
    record = {
        "config": own_config,
        "model": dict(model.provenance),
        **images,
        "steps": total,
        "versions": environment.versions(),
        "devices": parallel.device_kind(),
    }
    return Run(
        config,
        workdir,
        source,
        model,
        optimizer,
        schedule,
        total,
        every,
        evaluations,
        on_device,
        record,
    )


def begin(run: Run, saved: Checkpoints, mesh: Any) -> tuple[TrainState, bool]:
    """Returns the state from which a run goes on, and whether this is the start of the run.

    Args:
      run: the run.
      saved: the checkpoints of its workdir.
      mesh: the devices.
    """
    config = run.config
    optimizer = config.optimizer.optimizer
    target = shapes(run.first_state, mesh, config.shard_parameters)
    if saved.latest is not None:
        return saved.restore(saved.latest, target, optimizer), False
    if config.resume_from:
        folder, step = _state_of_another(config.resume_from)
        with Checkpoints(folder) as others:
            state = others.restore(step, target, optimizer)
        if int(state.step) >= run.total:
            raise ValueError(
                f"config.resume_from is the state after step {int(state.step)}, and config.steps = "
                f"{config.steps!r} is {run.total} steps in all: nothing is left to train"
            )
        return state, True
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    parallel.barrier("first state")
    return parallel.place(run.first_state(), shardings), True


def open_labelled(config: Fields) -> Any:
    """Opens the images of a config; raises ValueError if they are none or have no labels."""
    source = load_source(config)
    if not source.labelled or not len(source):
        lack = "labels" if len(source) else "images"
        raise ValueError(f"the {config['source']} data have no {lack}, which training needs")
    return source


def _check_orphans(workdir: Path) -> None:
    """Raises ValueError if the workdir holds a training and nothing that says whose it is."""
    names = (checkpoints.CHECKPOINTS, checkpoints.WEIGHTS, LOG)
    orphans = [name for name in names if storage.exists(workdir / name)]
    is_recorded = storage.exists(workdir / run_folder.RECORD)
    if orphans and not is_recorded and parallel.host()[0] == 0:
        raise ValueError(
            f"{workdir / orphans[0]} lies there without {run_folder.RECORD}, so it may be of "
            "another run: choose another --workdir, or delete it"
        )


def lengths(config: ConfigDict, source: Any) -> tuple[int, dict[str, int], Resolve]:
    """Returns the number of steps, how often things happen, and what resolves durations.

    Args:
      config: a checked config.
      source: the training images.

    Raises:
      ValueError: a length is none, or a batch does not fit the devices or the images.
    """
    _check_batch(config, source)
    resolve = functools.partial(durations.steps, batch=config.batch, images=len(source))
    total = resolve(config.steps)
    if not total:
        raise ValueError(f"config.steps = {config.steps!r}: expected at least one step")
    within = lambda duration, where: resolve(duration, total=total, where=where)  # noqa: E731
    names = ("log_every", "checkpoint_every", "keep_every")
    every = {name: within(config[name], f"config.{name}") for name in names}
    for name in ("log_every", "checkpoint_every"):
        if not every[name]:
            raise ValueError(f"config.{name} = {config[name]!r}: expected at least one step")
    if config.profile:
        first, last = map(int, config.profile.split(":"))
        if not 1 <= first <= last <= total:
            raise ValueError(
                f"config.profile = {config.profile!r}: expected two of the steps 1 to {total}, the "
                "smaller one first"
            )
    return total, every, within


def _check_batch(config: ConfigDict, source: Any) -> None:
    devices = parallel.data_mesh().size
    least = devices * config.accumulate
    if config.batch % least:
        raise ValueError(
            f"config.batch = {config.batch} is not a multiple of {least}: {devices} devices times "
            f"config.accumulate = {config.accumulate}"
        )
    if config.batch % config.repeats:
        raise ValueError(
            f"config.batch = {config.batch} is not a multiple of config.repeats = {config.repeats}"
        )
    if len(source) * config.repeats < config.batch:
        raise ValueError(
            f"the data have {len(source)} images, fewer than the {config.batch // config.repeats} "
            f"of one batch: set config.batch to at most {len(source) * config.repeats}, or take "
            "more of the data (its fraction, start, stop or shots)"
        )


def _check_classes(model: Model, source: Any) -> None:
    if model.check_classes(source).numbers is not None:
        raise ValueError(
            f"the head has {model.classes} classes in another order than the {source.classes} of "
            f"the data; set num_classes = {source.classes} and, with init_from, new_head"
        )


def _model(config: ConfigDict, workdir: Path) -> Model:
    """Returns the network with the weights before the first step.

    Weights of `config.init_from` are not read where a state has the weights already.
    """
    fields = config.model.to_dict()
    family, variant = fields.pop("family"), fields.pop("variant")
    own = _latest(workdir / checkpoints.CHECKPOINTS)
    if own is not None:
        state = checkpoints.checkpoint(workdir / checkpoints.CHECKPOINTS, own)
        model = load(family, variant, state, **{**fields, "new_head": False})
        before = storage.read_json(workdir / run_folder.RECORD)["model"]
        model.provenance = before  # where the first weights come from
        return model
    if config.resume_from:
        folder, step = _state_of_another(config.resume_from)
        state = checkpoints.checkpoint(folder, step)
        return load(family, variant, state, **{**fields, "new_head": False})
    model = load(family, variant, config.init_from, seed=config.seed, **fields)
    if config.head_bias:
        params = losses.head_bias(
            model.variables["params"], models.traits(family).heads, config.head_bias
        )
        model.variables = {**model.variables, "params": params}
    return model


def _latest(folder: Path) -> int | None:
    """Returns the step of the last checkpoint of a folder, None without one; on all hosts."""
    step = parallel.agree(max(checkpoints.steps_saved(folder), default=-1))
    return step if step >= 0 else None


def _state_of_another(resume_from: str) -> tuple[Path, int]:
    """Returns the folder of checkpoints of another run, and the step from which to go on."""
    path = storage.as_path(resume_from, "config.resume_from")
    if path.stem.isdigit() and path.parent.name == checkpoints.CHECKPOINTS:
        folder, step = path.parent, int(path.stem)
        if not storage.exists(checkpoints.checkpoint(folder, step)):
            step = None
    else:
        folder = path if path.name == checkpoints.CHECKPOINTS else path / checkpoints.CHECKPOINTS
        step = _latest(folder)
    if step is None:
        raise FileNotFoundError(
            f"config.resume_from = {os.fspath(resume_from)!r}: {folder} holds no such checkpoint"
        )
    return folder, step


def export(run: Run, variables: Mapping[str, Any]) -> None:
    """Writes weights.npz, on host 0."""
    if parallel.host()[0] == 0:
        states.export(run.workdir / checkpoints.WEIGHTS, variables, run.model)
