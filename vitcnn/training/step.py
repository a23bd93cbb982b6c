"""One step of training: a pure function of the state, a batch and the config.

    images -> normalised -> mixed -> network -> loss -> gradient -> update

Whatever is random in a step comes from the seeds of the config and the number of the step, so a
resumed run needs no state of a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vitcnn import parallel
from vitcnn.model import Model
from vitcnn.recipe import losses, mixing, optimizers
from vitcnn.training import remat
from vitcnn.training.state import TrainState

_DROPOUT, _MIXING = 1, 2  # streams of random numbers


def seeds(config: ConfigDict) -> tuple[int, int]:
    """Returns the seed of weights and dropout, and the seed of order, augmentation and mixing."""
    return config.seed, config.seed if config.data_seed < 0 else config.data_seed


def make(
    model: Model,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    config: ConfigDict,
    unroll: bool,
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the function that takes one step.

    Its arguments are the state and a batch, {"images": uint8 [n, h, w, 3], "label": int32 [n]}, as
    `vitcnn.data.batches` yields it. It returns the state after the step, and of the step, in
    float32: the loss and the accuracy of the batch (against the class with the larger share, where
    images are mixed), the learning rate, the norms of `optimizers.norms`; and "finite", whether
    all of them are.

    Args:
      model: the network with its preprocessing.
      optimizer: an optax transformation.
      schedule: step -> factor of the learning rate.
      config: a checked training config.
      unroll: whether the parts of a batch (`config.accumulate`) are computed by a program that
        repeats them, instead of a loop. XLA has no fast convolutions in loops on the CPU.

    Raises:
      ValueError: the network cannot compute in the type that the config names, or has no blocks
        for `config.remat`.
    """
    gradient_of = jax.value_and_grad(_loss(model, config), has_aux=True)
    weight_seed, data_seed = seeds(config)
    settings, parts = mixing.Mixing(**config.mixing), config.accumulate

    def gradient(params, stats, key, images, targets):
        """Returns (mean loss, number of right images, new statistics, gradient)."""

        def add(total, part):
            (stats, *sums), (number, images, targets) = total, part
            part_key = jax.random.fold_in(key, number)
            (loss, (right, stats)), slope = gradient_of(params, stats, part_key, images, targets)
            return (stats, *jax.tree.map(jnp.add, tuple(sums), (loss, right, slope))), None

        if parts == 1:
            (loss, (right, stats)), slope = gradient_of(params, stats, key, images, targets)
            return loss, right, stats, slope
        # Part i has the rows i, i + parts, ...: every device has its share of each part.
        split = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
        rows = (jnp.arange(parts), split(images), split(targets))
        total = (stats, jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        if unroll:
            for i in range(parts):
                total, _ = add(total, jax.tree.map(lambda x, i=i: x[i], rows))
        else:
            total, _ = jax.lax.scan(add, total, rows)
        stats, loss, right, slope = total
        return loss / parts, right, stats, jax.tree.map(lambda x: x / parts, slope)

    def step(state: TrainState, batch: Mapping[str, Any]):
        images = model.preprocess.normalise(batch["images"])
        targets = losses.targets(batch["label"], model.classes, config.label_smoothing)
        images, targets = mixing.mix(
            settings, _key(data_seed, _MIXING, state.step), images, targets
        )
        key = _key(weight_seed, _DROPOUT, state.step)
        loss, right, stats, slope = gradient(state.params, state.stats, key, images, targets)
        updates, optimizer_state = optimizer.update(slope, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "accuracy": right / len(images),
            "learning_rate": jnp.float32(config.learning_rate) * schedule(state.step),
            **optimizers.norms(config.multipliers, gradient=slope, params=params, updates=updates),
        }
        metrics["finite"] = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
        average = state.average and _averaged(state.average, params, state.step, config.average)
        return TrainState(state.step + 1, params, stats, optimizer_state, average), metrics

    return step


def trace(
    model: Model,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    config: ConfigDict,
    unroll: bool,
    state: TrainState,
    batch: Mapping[str, Any],
    mesh: Any,
) -> Any:
    """Traces a step as a training takes it: on a mesh, at its precision, overwriting its state.

    Args:
      model, optimizer, schedule, config, unroll: see `make`.
      state, batch: arrays, or their shapes, with their shardings.
      mesh: the devices.

    Raises:
      ValueError: see `make`.
    """
    step = make(model, optimizer, schedule, config, unroll)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    out = (shardings, parallel.everywhere(mesh))
    with jax.default_matmul_precision(config.precision):
        return jax.jit(step, donate_argnums=0, out_shardings=out).trace(state, batch)


def _loss(model: Model, config: ConfigDict) -> Callable[..., Any]:
    """Returns the loss of a batch, with (number of right images, new statistics)."""
    network = model.module
    if config.compute != "float32":
        if not hasattr(network, "dtype"):
            raise ValueError(
                f"config.compute = {config.compute!r}, but {type(network).__name__} has no field "
                "dtype: set compute = 'float32'"
            )
        network = network.clone(dtype=jnp.dtype(config.compute))
    images = jax.ShapeDtypeStruct((1, *model.image_size, 3), jnp.float32)
    apply = remat.apply(network, remat.blocks(network, images) if config.remat else frozenset())
    loss_of = losses.LOSSES[config.loss]

    def loss(params, stats, key, images, targets):
        logits, new = apply(
            {"params": params, **stats},
            images,
            train=True,
            mutable=list(stats),
            rngs={"dropout": key},
        )
        logits = logits.astype(jnp.float32)
        right = jnp.sum(jnp.argmax(logits, -1) == jnp.argmax(targets, -1), dtype=jnp.float32)
        return loss_of(logits, targets).mean(), (right, {**stats, **new})

    return loss


def _key(seed: int, stream: int, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def _averaged(average: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Returns the average after a step; its horizon grows to that of `decay` with the training."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step)).astype(jnp.float32)
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
