"""The training loop: one, for every model; an experiment is a config, never a copy of this file."""

from __future__ import annotations

import functools
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

from vitcnn import checkpoints, data, parallel, storage
from vitcnn.config import Training, check_training
from vitcnn.engine import jobs as engine_jobs
from vitcnn.engine import stream
from vitcnn.model import Model, load
from vitcnn.results import environment
from vitcnn.results import workdir as run_folder
from vitcnn.training.optimizer import make_optimizer


@flax.struct.dataclass
class State:
    """What a step changes, and a checkpoint holds."""

    step: jax.Array
    params: Any
    stats: Any  # running statistics of batch norm, {} if there is none
    optimizer: Any


def train(config: Any, workdir: Any, *, progress: bool = True) -> Model:
    """Trains a network on a data-parallel mesh of all devices.

    Weights start from the last checkpoint in the workdir if there is one, else from
    `config.init_from`, else at random. Batch k is a pure function of (config, seed, k), so a run
    that was stopped and resumed does the same steps as one that was not.

    Args:
      config: fields of `vitcnn.config.Training`; `configs/train/` has examples.
      workdir: folder for checkpoints, weights.npz, run.json and train.jsonl.
      progress: whether to show progress with rate, loss and ETA.

    Returns:
      The trained model; `vitcnn.load(family, variant, weights=workdir)` gives it again.

    Raises:
      ValueError: anything in the config that is unknown or does not fit.
      FloatingPointError: the loss is not finite.
    """
    config = check_training(config)
    identity = {k: v for k, v in config.to_dict().items() if k not in Training.NEUTRAL}
    workdir = run_folder.claim_workdir(workdir, {"config": identity}).absolute()
    fields = config.model.to_dict()
    family, variant = fields.pop("family"), fields.pop("variant")
    done = workdir / checkpoints.WEIGHTS
    if done.is_file():
        return load(family, variant, weights=workdir)
    source = _labelled(config.data)
    evaluation = _labelled(config.eval_data) if config.eval_data else None
    model = load(family, variant, config.init_from or None, seed=config.seed, **fields)
    model.check_classes(source)
    jobs = []
    if evaluation is not None:
        model.check_classes(evaluation)
        group = max(4, min(config.batch, len(evaluation)))
        jobs = engine_jobs.plan_jobs({"model": model}, evaluation, {"accuracy": {}}, group)
    process, processes = parallel.host()
    mesh = parallel.data_mesh()
    if config.batch % mesh.size:
        raise ValueError(f"batch = {config.batch} is not a multiple of the {mesh.size} devices")
    run = {"config": identity, "model": dict(model.provenance), "data": dict(source.provenance)}
    run |= {"versions": environment.versions(), "devices": parallel.device_kind()}
    if process == 0:
        storage.write_json(workdir / "run.json", run)

    optimizer = make_optimizer(config)
    variables = dict(model.variables)
    params = variables.pop("params")
    state = State(jnp.zeros((), jnp.int32), params, variables, optimizer.init(params))
    state = parallel.replicate(state, mesh)
    step = jax.jit(functools.partial(_step, model, optimizer, config))
    options = ocp.CheckpointManagerOptions(max_to_keep=1)
    with ocp.CheckpointManager(workdir / checkpoints.CHECKPOINTS, options=options) as manager:
        if manager.latest_step() is not None:
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
        first = int(state.step)
        if process == 0:  # steps behind the checkpoint are done again
            run_folder.cut_log(workdir / "train.jsonl", "step", first)
        batches = data.batches(
            source,
            model.preprocess,
            config.batch,
            config.seed,
            start=first,
            augment=tuple(config.augment),
            host=process,
            hosts=processes,
        )
        bar = tqdm.tqdm(
            total=config.steps,
            initial=first,
            unit=" steps",
            desc=f"training {family} {variant}",
            disable=not (progress and process == 0),
        )
        started = time.monotonic()
        with jax.default_matmul_precision(config.precision):
            for k in range(first, config.steps):
                batch = next(batches)
                batch = {"image": batch["images"], "label": batch["label"]}
                last = state.step
                state, metrics = step(state, parallel.shard(batch, mesh))
                jax.block_until_ready(
                    last
                )  # one step ahead of the device, so that the rate is true
                bar.update()
                if (k + 1) % config.log_every == 0 or k + 1 == config.steps:
                    metrics = {name: float(value) for name, value in metrics.items()}
                    if not np.isfinite(metrics["loss"]):
                        raise FloatingPointError(
                            f"the loss is {metrics['loss']} at step {k + 1}; lower learning_rate "
                            f"(now {config.learning_rate:g}) or lengthen warmup"
                        )
                    bar.set_postfix({n: f"{v:.3f}" for n, v in metrics.items()}, refresh=False)
                    if process == 0:
                        log = {"step": k + 1, **metrics, "seconds": time.monotonic() - started}
                        run_folder.log_line(workdir / "train.jsonl", **log)
                if (k + 1) % config.checkpoint_every == 0 or k + 1 == config.steps:
                    manager.save(k + 1, args=ocp.args.StandardSave(state))
        bar.close()
        manager.wait_until_finished()
    variables = {"params": state.params, **state.stats}
    model.variables = jax.tree.map(np.asarray, variables)
    if jobs:
        shown = progress and process == 0
        measured = stream.measure({"model": model}, evaluation, jobs, group=group, progress=shown)
        measured = measured["accuracy.model"]
        for name in ("top1", "nll", "images"):
            run.setdefault("accuracy", {})[name] = measured[name].item()
    if process == 0:
        checkpoints.export(done, model.variables, {"preprocess": model.preprocess.to_dict()})
        storage.write_json(workdir / "run.json", run)
    parallel.barrier("training done")
    return load(family, variant, weights=workdir)


def _labelled(config: Mapping[str, Any]) -> Any:
    """Opens the images of a config; a ValueError says if they have no labels."""
    source = engine_jobs.load_source(config)
    if not source.labelled:
        raise ValueError(f"the {config['source']} data have no labels, which training needs")
    return source


def _step(model, optimizer, config, state, batch):
    """One step: softmax cross-entropy on a batch, its gradient, an update."""
    image = model.preprocess.normalise(batch["image"])
    dropout = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def loss_of(params):
        logits, new = model.module.apply(
            {"params": params, **state.stats},
            image,
            train=True,
            mutable=list(state.stats),
            rngs={"dropout": dropout},
        )
        target = jax.nn.one_hot(batch["label"], logits.shape[-1])
        target = optax.smooth_labels(target, config.label_smoothing)
        return optax.softmax_cross_entropy(logits, target).mean(), (logits, new)

    (loss, (logits, new)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
    state = State(state.step + 1, params, {**state.stats, **new}, optimizer_state)
    return state, {"loss": loss, "accuracy": accuracy}
