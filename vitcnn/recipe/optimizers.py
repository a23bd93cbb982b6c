"""Optimizers: one explicit chain for all of them, from a gradient to an update.

    clip -> direction, with weight decay -> learning rate x multiplier -> schedule -> minus

The chain sees the trainable parameters only: frozen ones have no state, and do not count in the
norm that is clipped. Weight decay is decoupled for every optimizer (Loshchilov and Hutter 2019): in
a step a parameter shrinks by the share schedule x learning rate x multiplier x weight decay. So the
decay of AdamW is written as it is, and that of big_vision is divided by the learning rate; the L2
term c of classic SGD with momentum m becomes the weight decay c / (1 - m). LAMB and LARS rescale
the sum of direction and decay, so that their decay is a part of a step of fixed length.

Decay and multipliers are chosen by name, see `vitcnn.recipe.patterns`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from vitcnn.lookup import Field, check_name, fields_of
from vitcnn.recipe import directions, patterns
from vitcnn.recipe.patterns import Patterns

_FROZEN, _TRAINABLE = "frozen", "trainable"


_DIRECTIONS = (
    directions.adam,
    directions.sgd,
    directions.lamb,
    directions.lars,
    directions.adafactor,
    directions.lion,
    directions.rmsprop,
)
OPTIMIZERS = {direction.__name__: direction for direction in _DIRECTIONS}

# Names of optimizers that contain weight decay elsewhere, and their directions.
_WITHOUT_DECAY = {"adamw": "adam", "nadamw": "adam", "sgdw": "sgd", "momentum": "sgd"}


def fields(name: str) -> dict[str, Field]:
    """Returns the fields of an optimizer.

    Args:
      name: one of OPTIMIZERS, or the dotted name of a function that returns an optax
        transformation, such as "optax.scale_by_adan"; weight decay is added after it.

    Raises:
      ValueError: there is no such optimizer; the message gives the nearest names.
    """
    return fields_of(_factory(name), ("decay",))


def _factory(name: str) -> Callable[..., optax.GradientTransformation]:
    if name in _WITHOUT_DECAY:
        raise ValueError(
            f"unknown optimizer {name!r}: use {_WITHOUT_DECAY[name]!r}; config.weight_decay is "
            "decoupled for every optimizer"
        )
    if "." not in name:
        check_name("optimizer", name, OPTIMIZERS)
        return OPTIMIZERS[name]
    module, _, function_name = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), function_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"unknown optimizer {name!r}: {error}") from error
    if not callable(function):
        raise ValueError(f"unknown optimizer {name!r}: it is not a function")
    if "learning_rate" in fields_of(function):
        raise ValueError(
            f"{name!r} has a learning rate of its own, which is a field of the config here: name "
            "a function that returns a direction, such as 'optax.scale_by_adan'"
        )
    return function


def make(config: Any, schedule: Callable[[Any], Any]) -> optax.GradientTransformation:
    """Returns the optimizer of a training config. Its `init` checks every pattern.

    Args:
      config: has the keys
        optimizer: {"optimizer": name, field: value};
        learning_rate: at the peak of the schedule;
        weight_decay: decoupled, times the learning rate;
        decay: patterns of the decayed parameters, "glob" or "glob=factor of the weight decay";
        multipliers: "glob=factor of the learning rate", 0 to freeze;
        clip: the largest global norm of the gradient of all trainable parameters; 0 for any.
        Of patterns, the first that matches a parameter counts.
      schedule: step, counted from 0 -> factor of the learning rate.

    Raises:
      ValueError: an unknown optimizer or field, or a number that does not fit.
    """
    for field in ("learning_rate", "weight_decay", "clip"):
        if not 0 <= config[field] < math.inf:
            raise ValueError(f"config.{field} = {config[field]!r}: expected a number from 0")
    decay, multipliers = _decay(config["decay"]), _multipliers(config["multipliers"])

    def add_decay(updates, params):
        def add(update, param, factor):
            rate = config["weight_decay"] * factor
            return update + rate * param if rate else update

        return jax.tree.map(add, updates, params, decay.factors(params))

    def is_decayed(params):  # also without any weight decay, because LAMB and LARS ask
        return jax.tree.map(bool, decay.factors(params))

    def scale(updates, params=None):
        rate = config["learning_rate"]
        factors = multipliers.factors(updates)
        return jax.tree.map(lambda update, factor: rate * factor * update, updates, factors)

    def labels(params):
        factors = multipliers.factors(params)
        return jax.tree.map(lambda factor: _TRAINABLE if factor else _FROZEN, factors)

    chain = optax.chain(
        optax.clip_by_global_norm(config["clip"]) if config["clip"] else optax.identity(),
        _direction(config["optimizer"], directions.Decay(optax.stateless(add_decay), is_decayed)),
        optax.stateless(scale),
        optax.scale_by_schedule(schedule),
        optax.scale(-1.0),
    )
    parts = optax.partition({_TRAINABLE: chain, _FROZEN: optax.set_to_zero()}, labels)

    def init(params):
        decay.check(params)
        trainable(params, config["multipliers"])
        return parts.init(params)

    return optax.GradientTransformation(init, parts.update)


def _direction(config: Any, decay: directions.Decay) -> optax.GradientTransformation:
    values = dict(config.items())
    name = values.pop("optimizer")
    known = fields(name)
    for field in values:
        check_name(f"field of the optimizer {name}:", field, known)
    if name in OPTIMIZERS:
        return OPTIMIZERS[name](decay, **values)
    return optax.chain(_factory(name)(**values), decay.add)


def decayed(params: PyTree, decay: Sequence[str]) -> dict[str, float]:
    """Returns {path: factor of the weight decay} of the parameters that decay.

    Args:
      params: arrays, or their shapes.
      decay: "glob" or "glob=factor"; the first that matches counts, and without one a parameter
        does not decay.

    Raises:
      ValueError: a pattern that matches no parameter, with the nearest paths, or has no effect.
    """
    factors = _decay(decay)
    factors.check(params)
    return {path: factor for path, factor in factors.factor_by_path(params).items() if factor}


def trainable(params: PyTree, multipliers: Sequence[str]) -> PyTree:
    """Returns the tree of whether each parameter is trained: its multiplier is not 0.

    Args:
      params: arrays, or their shapes.
      multipliers: "glob=factor" of the learning rate; the first that matches counts, and without
        one the factor is 1.

    Raises:
      ValueError: a pattern that matches no parameter, with the nearest paths, or that has no
        effect; or no parameter is trained.
    """
    factors = _multipliers(multipliers)
    factors.check(params)
    tree = jax.tree.map(bool, factors.factors(params))
    if not any(jax.tree.leaves(tree)):
        raise ValueError(f"config.multipliers = {tuple(multipliers)} freeze every parameter")
    return tree


def norms(
    multipliers: Sequence[str], *, gradient: PyTree, params: PyTree, updates: PyTree
) -> dict[str, Float[Array, ""]]:
    """Returns global norms over the trainable parameters, for the log.

    Args:
      multipliers: as for `trainable`.
      gradient: of the loss, before it is clipped.
      params: the parameters.
      updates: what the step adds to the parameters.

    Returns:
      {"gradient_norm", "parameter_norm", "update_norm"}.
    """
    moves = jax.tree.leaves(trainable(params, multipliers))

    def norm(tree):
        leaves = zip(jax.tree.leaves(tree), moves, strict=True)
        return optax.tree.norm([leaf.astype(jnp.float32) for leaf, move in leaves if move])

    trees = {"gradient_norm": gradient, "parameter_norm": params, "update_norm": updates}
    return {name: norm(tree) for name, tree in trees.items()}


def _decay(texts: Sequence[str]) -> Patterns:
    return patterns.parse(texts, "config.decay", otherwise=0.0, bare=1.0)


def _multipliers(texts: Sequence[str]) -> Patterns:
    return patterns.parse(texts, "config.multipliers", otherwise=1.0)
