"""The training loop: one, for every model; an experiment is a config, never a copy of this file."""

from __future__ import annotations

import functools
import inspect
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

from vitcnn import checkpoints, data, parallel, plan, results, stream
from vitcnn.lookup import check_name
from vitcnn.model import Model, load

# The fields of a training config and their defaults; configs/train/ has examples.
CONFIG: Mapping[str, Any] = {
    "model": {},  # family, variant, fields of the module, preprocess
    "data": {},  # source, and the fields of its `load`
    "eval_data": {},  # the same for the final accuracy; {} for none
    "augment": (),  # see vitcnn.data.batches
    "init_from": "",  # checkpoint whose weights training starts from; "" is random weights
    "batch": 128,  # images per step, over all devices of all hosts
    "steps": 1000,
    "optimizer": "adamw",  # a function of optax
    "optimizer_fields": {},  # its arguments beside learning_rate
    "learning_rate": 1e-3,  # peak, reached after `warmup`, then cosine to zero
    "warmup": 100,  # steps
    "clip": 1.0,  # global norm of the gradient; 0 is no clipping
    "label_smoothing": 0.0,
    "precision": "default",  # of matrix products: "default" is the fast one of the hardware
    "seed": 0,  # weights, dropout, order and augmentation of the images
    "log_every": 20,  # steps between lines of train.jsonl
    "checkpoint_every": 500,  # steps between checkpoints to resume from
}
NEUTRAL = ("log_every", "checkpoint_every")  # fields that do not change a number


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
      config: fields of `CONFIG`.
      workdir: folder for checkpoints, weights.npz, run.json and train.jsonl.
      progress: whether to show progress with rate, loss and ETA.

    Returns:
      The trained model; `vitcnn.load(family, variant, weights=workdir)` gives it again.

    Raises:
      ValueError: anything in the config that is unknown or does not fit.
      FloatingPointError: the loss is not finite.
    """
    config = check_config(config)
    identity = {k: v for k, v in config.to_dict().items() if k not in NEUTRAL}
    workdir = results.claim_workdir(workdir, {"config": identity}).absolute()
    fields = dict(config.model.items())
    family, variant = fields.pop("family"), fields.pop("variant")
    done = workdir / checkpoints.WEIGHTS
    if done.is_file():
        return load(family, variant, weights=workdir)
    source = open_data(config.data)
    evaluation = open_data(config.eval_data) if config.eval_data else None
    model = load(family, variant, config.init_from or None, seed=config.seed, **fields)
    model.check_classes(source)
    jobs = []
    if evaluation is not None:
        model.check_classes(evaluation)
        group = max(4, min(config.batch, len(evaluation)))
        jobs = plan.plan_jobs({"model": model}, evaluation, {"accuracy": {}}, group)
    process, processes = parallel.host()
    mesh = parallel.data_mesh()
    if config.batch % mesh.size:
        raise ValueError(f"batch = {config.batch} is not a multiple of the {mesh.size} devices")
    run = {"config": identity, "model": dict(model.provenance), "data": dict(source.provenance)}
    run |= {"versions": results.versions(), "devices": parallel.device_kind()}
    if process == 0:
        results.write_json(workdir / "run.json", run)

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
            results.cut_log(workdir / "train.jsonl", "step", first)
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
                        results.log_line(workdir / "train.jsonl", **log)
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
        results.write_json(workdir / "run.json", run)
    parallel.barrier("training done")
    return load(family, variant, weights=workdir)


def defaults() -> ConfigDict:
    """Returns `CONFIG` for a config file to fill in: what it has, a flag can set."""
    return ConfigDict(CONFIG)


def check_config(config: Mapping[str, Any]) -> ConfigDict:
    """Returns a training config with defaults filled in; a ValueError names an unknown field."""
    for field in config:
        check_name("field of the config", field, CONFIG)
    full = ConfigDict({**CONFIG, **dict(config.items())})
    for field in ("family", "variant"):
        if not full.model.get(field):
            raise ValueError(f"config.model.{field} is not set")
    if not full.data.get("source"):
        raise ValueError(f"config.data.source is not set: name one of {data.sources()}")
    if full.steps < 1 or full.batch < 1:
        raise ValueError(f"steps = {full.steps} and batch = {full.batch} must be at least 1")
    if not 0 <= full.warmup < full.steps:
        raise ValueError(f"warmup = {full.warmup} must be from 0 to below steps = {full.steps}")
    return full


def open_data(config: Mapping[str, Any]) -> Any:
    """Opens a labelled source from the fields of a config."""
    source = data.load(config["source"], **{k: v for k, v in config.items() if k != "source"})
    if not source.labelled:
        raise ValueError(f"the {config['source']} data have no labels, which training needs")
    return source


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optax optimizer of a config: linear warm-up, cosine decay, clipping."""
    known = [
        name
        for name, made in inspect.getmembers(optax, inspect.isfunction)
        if "learning_rate" in inspect.signature(made).parameters
    ]
    check_name("optimizer of optax", config.optimizer, known)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, config.steps
    )
    fields = dict(config.optimizer_fields.items())
    if "weight_decay" in fields:  # of matrices, not of biases and norms
        fields["mask"] = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    made = getattr(optax, config.optimizer)(learning_rate=schedule, **fields)
    return optax.chain(optax.clip_by_global_norm(config.clip), made) if config.clip else made


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
