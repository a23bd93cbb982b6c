"""The training loop: one for every model. An experiment is a config, never a copy of this file."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tqdm
from ml_collections import ConfigDict

from vitcnn import checkpoints, data, parallel, storage
from vitcnn.config import Training, check_training
from vitcnn.config.schema import Fields
from vitcnn.data import content
from vitcnn.engine import identity
from vitcnn.engine.jobs import Job, load_source, plan_jobs
from vitcnn.engine.stream import RunSettings, measure
from vitcnn.model import Model, load
from vitcnn.results import environment
from vitcnn.results import workdir as run_folder
from vitcnn.training.optimizer import make_optimizer


@flax.struct.dataclass
class TrainState:
    """What a step changes, and what a checkpoint holds."""

    step: jax.Array
    params: Any
    stats: Any  # running statistics of batch norm; {} for a network without batch norm
    optimizer: Any


def train(config: Any, workdir: Any, *, progress: bool = True) -> Model:
    """Trains a network on a data-parallel mesh of all devices.

    Training starts from the last checkpoint in the workdir if there is one, else from the weights
    `config.init_from` if they are given, else from random weights. Batch k is a pure function of
    (config, seed, k), so a run that was stopped and resumed takes the same steps as a run that was
    not.

    Args:
      config: fields of `vitcnn.config.Training`; `configs/train/` has examples.
      workdir: folder for checkpoints, weights.npz, run.json and train.jsonl.
      progress: whether to show a bar with rate, loss and ETA.

    Returns:
      The trained model; `vitcnn.load(family, variant, weights=workdir)` loads it again.

    Raises:
      ValueError: anything in the config that is unknown or does not fit.
      FloatingPointError: the loss is not finite.
    """
    config = check_training(config)
    if config.compilation_cache:
        parallel.cache_programs(storage.cache_folder() / "programs")
    own_config = {k: v for k, v in config.to_dict().items() if k not in Training.NEUTRAL}
    neutral = identity.neutral(config)
    workdir = run_folder.claim_workdir(workdir, {"config": own_config}, neutral).absolute()
    fields = config.model.to_dict()
    family, variant = fields.pop("family"), fields.pop("variant")
    weights = workdir / checkpoints.WEIGHTS
    source = _open_labelled(config.data)
    images = {
        "data": content.describe(source),
        "images_sha256": identity.source_sha256(source),
    }
    run_folder.claim_workdir(workdir, {"config": own_config, **images}, neutral)
    if weights.is_file():
        return load(family, variant, weights=workdir)
    model = load(family, variant, config.init_from or None, seed=config.seed, **fields)
    if model.check_classes(source).numbers is not None:
        raise ValueError(
            f"the head has {model.classes} classes in another order than the {source.classes} of "
            f"the data; set num_classes = {source.classes} and, with init_from, new_head"
        )
    if "class_names" in images["data"]:  # of the logits, from now on
        model.provenance = {**model.provenance, "class_names": images["data"]["class_names"]}
    evaluation = _open_labelled(config.eval_data) if config.eval_data else None
    jobs = [] if evaluation is None else _evaluation_jobs(model, evaluation, config)
    devices = parallel.data_mesh().size
    if config.batch % devices:
        raise ValueError(f"batch = {config.batch} is not a multiple of the {devices} devices")
    first_host = parallel.host()[0] == 0
    record = {
        "config": own_config,
        "model": dict(model.provenance),
        **images,
        "versions": environment.versions(),
        "devices": parallel.device_kind(),
    }
    if first_host:
        storage.write_json(workdir / "run.json", record)
    state = _fit(model, source, config, workdir, progress and first_host)
    model.variables = jax.tree.map(np.asarray, {"params": state.params, **state.stats})
    if jobs:
        show_progress = progress and first_host
        record["accuracy"] = _evaluate(model, evaluation, jobs, config, show_progress)
    if first_host:
        checkpoints.export(weights, model.variables, {"preprocess": model.preprocess.to_dict()})
        storage.write_json(workdir / "run.json", record)
    parallel.barrier("training done")
    return load(family, variant, weights=workdir)


def _open_labelled(config: Fields) -> Any:
    """Opens the images of a config; raises ValueError if they are none or have no labels."""
    source = load_source(config)
    if not source.labelled or not len(source):
        lack = "labels" if len(source) else "images"
        raise ValueError(f"the {config['source']} data have no {lack}, which training needs")
    return source


def _fit(
    model: Model, source: Any, config: ConfigDict, workdir: pathlib.Path, show_progress: bool
) -> TrainState:
    """Takes the steps that remain, with logs and checkpoints, and returns the last state."""
    mesh = parallel.data_mesh()
    optimizer = make_optimizer(config)
    take_step = jax.jit(functools.partial(_step, model, optimizer, config))
    options = ocp.CheckpointManagerOptions(max_to_keep=1)
    with ocp.CheckpointManager(workdir / checkpoints.CHECKPOINTS, options=options) as manager:
        state = parallel.replicate(_initial_state(model, optimizer), mesh)
        if manager.latest_step() is not None:
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
        first = int(state.step)
        batches = _batches(model, source, config, first)
        if parallel.host()[0] == 0:  # the steps after the checkpoint are taken again
            run_folder.cut_log(workdir / "train.jsonl", "step", first)
        bar = tqdm.tqdm(
            total=config.steps,
            initial=first,
            unit=" steps",
            desc=f"training {config.model.family} {config.model.variant}",
            disable=not show_progress,
        )
        started = time.monotonic()
        with jax.default_matmul_precision(config.precision):
            for step in range(first + 1, config.steps + 1):
                previous = state.step
                state, metrics = take_step(state, parallel.shard(next(batches), mesh))
                # The host stays one step ahead of the device, so the rate in the bar is true.
                jax.block_until_ready(previous)
                bar.update()
                if step % config.log_every == 0 or step == config.steps:
                    metrics = {name: float(value) for name, value in metrics.items()}
                    _check_finite(metrics["loss"], step, config.learning_rate)
                    bar.set_postfix({n: f"{v:.3f}" for n, v in metrics.items()}, refresh=False)
                    _log(workdir, step, metrics, time.monotonic() - started)
                if step % config.checkpoint_every == 0 or step == config.steps:
                    manager.save(step, args=ocp.args.StandardSave(state))
        bar.close()
        manager.wait_until_finished()
    return state


def _initial_state(model: Model, optimizer: optax.GradientTransformation) -> TrainState:
    stats = dict(model.variables)
    params = stats.pop("params")
    return TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params))


def _batches(model: Model, source: Any, config: ConfigDict, first: int) -> Any:
    """Yields this host's share of every batch, from step `first` on."""
    process, processes = parallel.host()
    return data.batches(
        source,
        model.preprocess,
        config.batch,
        config.seed,
        start=first,
        augment=tuple(config.augment),
        host=process,
        hosts=processes,
    )


def _step(model, optimizer, config, state, batch):
    """Takes one step: softmax cross-entropy of a batch, its gradient, an update.

    Args:
      model: the model.
      optimizer: an optax transformation.
      config: the training config.
      state: the state before the step.
      batch: {"images": uint8 [n, h, w, 3], "label": int32 [n]}, as `vitcnn.data.batches` yields.

    Returns:
      (state after the step, {"loss", "accuracy"} of the batch before the step).
    """
    images = model.preprocess.normalise(batch["images"])

    def loss_of(params):
        logits, new_stats = model.module.apply(
            {"params": params, **state.stats}, images, train=True, mutable=list(state.stats)
        )
        target = jax.nn.one_hot(batch["label"], logits.shape[-1])
        target = optax.smooth_labels(target, config.label_smoothing)
        return optax.softmax_cross_entropy(logits, target).mean(), (logits, new_stats)

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (logits, new_stats)), gradient = gradient_of(state.params)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
    stats = {**state.stats, **new_stats}
    state = TrainState(state.step + 1, params, stats, optimizer_state)
    return state, {"loss": loss, "accuracy": accuracy}


def _check_finite(loss: float, step: int, learning_rate: float) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {step}; lower learning_rate (now {learning_rate:g}) or "
            "lengthen warmup"
        )


def _log(workdir: pathlib.Path, step: int, metrics: Mapping[str, float], seconds: float) -> None:
    """Adds a line to train.jsonl, on host 0."""
    if parallel.host()[0] == 0:
        run_folder.log_line(workdir / "train.jsonl", step=step, **metrics, seconds=seconds)


def _evaluation_jobs(model: Model, evaluation: Any, config: ConfigDict) -> list[Job]:
    """Returns the accuracy job of the evaluation images, before any step is taken."""
    group = _evaluation_settings(evaluation, config).group
    return plan_jobs({"model": model}, evaluation, {"accuracy": {}}, group)


def _evaluation_settings(evaluation: Any, config: ConfigDict) -> RunSettings:
    """Returns the engine's settings: a training config has no groups, so they are its batches."""
    return RunSettings(group=min(config.batch, len(evaluation)))


def _evaluate(
    model: Model, evaluation: Any, jobs: list[Job], config: ConfigDict, show_progress: bool
) -> dict[str, float]:
    """Returns {"top1", "nll", "images"} of a model on the evaluation images."""
    settings = _evaluation_settings(evaluation, config)
    measured = measure({"model": model}, evaluation, jobs, settings, show_progress=show_progress)
    accuracy = measured["accuracy.model"]
    return {name: accuracy[name].item() for name in ("top1", "nll", "images")}
