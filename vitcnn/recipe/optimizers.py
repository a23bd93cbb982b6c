"""Optimizers: one explicit chain for all of them, from a gradient to an update.

    clip -> direction, with weight decay -> learning rate x multiplier -> schedule -> minus

The chain sees the trainable parameters only: frozen ones have no state, and do not count in the
norm that is clipped. Weight decay is decoupled for every optimizer (Loshchilov and Hutter 2019): in
a step a parameter shrinks by the share schedule x learning rate x multiplier x weight decay. So the
decay of AdamW is written as it is, and that of big_vision is divided by the learning rate; the L2
term c of classic SGD with momentum m becomes the weight decay c / (1 - m).

Decay and multipliers are chosen by name: a pattern is a glob on the path of a parameter, such as
"Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", and `*` also matches "/".
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from vitcnn.lookup import Field, check_name, fields_of, nearest

_FROZEN, _TRAINABLE = "frozen", "trainable"


@dataclasses.dataclass(frozen=True)
class Decay:
    """Weight decay, for an optimizer to put where it belongs in its direction.

    Attributes:
      add: transformation that adds weight decay x parameter to every decayed parameter.
      is_decayed: tree of parameters -> tree of bool.
    """

    add: optax.GradientTransformation
    is_decayed: Callable[[PyTree], PyTree]


def sgd(
    decay: Decay, momentum: float = 0.9, nesterov: bool = False, accumulator_dtype: str = ""
) -> optax.GradientTransformation:
    """The gradient with momentum.

    Args:
      decay: added after the momentum, which does not accumulate it.
      momentum: share of the sum of gradients that is kept at each step; 0 for none.
      nesterov: whether the momentum looks one step ahead.
      accumulator_dtype: type in which the sum is stored, such as "bfloat16", as in Google's
        recipes; "" for float32. In bfloat16 the momentum is rounded too, 0.9 to 0.898.
    """
    dtype = _dtype("accumulator_dtype", accumulator_dtype)
    trace = optax.trace(momentum, nesterov, dtype) if momentum else optax.identity()
    return optax.chain(trace, decay.add)


def adam(
    decay: Decay,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    nesterov: bool = False,
    mu_dtype: str = "",
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015), with decoupled decay AdamW.

    Args:
      decay: added after the direction.
      b1, b2: decay rates of the averages of the gradient and of its square.
      eps: added to the root of the average square.
      nesterov: whether the average of the gradient looks one step ahead (NAdam).
      mu_dtype: type in which the average of the gradient is stored, such as "bfloat16", as in
        Google's recipes; "" for float32.
    """
    dtype = _dtype("mu_dtype", mu_dtype)
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps, mu_dtype=dtype, nesterov=nesterov), decay.add
    )


def lamb(
    decay: Decay, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, mu_dtype: str = ""
) -> optax.GradientTransformation:
    """LAMB (You et al. 2020): each array moves in proportion to its own norm.

    Only decayed parameters are rescaled, as in the implementations of NVIDIA and timm: the norm of
    a bias that starts at zero is no measure of how far it should move.

    Args:
      decay: added before the direction is rescaled.
      b1, b2: decay rates of the averages of the gradient and of its square.
      eps: added to the root of the average square.
      mu_dtype: type in which the average of the gradient is stored; "" for float32.
    """
    direction = optax.scale_by_adam(b1, b2, eps, mu_dtype=_dtype("mu_dtype", mu_dtype))
    trust_ratio = optax.masked(optax.scale_by_trust_ratio(), decay.is_decayed)
    return optax.chain(direction, decay.add, trust_ratio)


def lars(
    decay: Decay,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust_coefficient: float = 0.001,
    accumulator_dtype: str = "",
) -> optax.GradientTransformation:
    """LARS (You et al. 2017): SGD in which each array moves in proportion to its own norm.

    Only decayed parameters are rescaled, see `lamb`. The momentum follows the rescaling; the paper
    accumulates it after the learning rate, which is the same while the rate is constant.

    Args:
      decay: added to the gradient, before it is rescaled.
      momentum: share of the sum of directions that is kept at each step; 0 for none.
      nesterov: whether the momentum looks one step ahead.
      trust_coefficient: share of its norm that an array moves at a learning rate of 1.
      accumulator_dtype: type in which the sum is stored; "" for float32.
    """
    dtype = _dtype("accumulator_dtype", accumulator_dtype)
    rescale = optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient)
    trace = optax.trace(momentum, nesterov, dtype) if momentum else optax.identity()
    return optax.chain(decay.add, optax.masked(rescale, decay.is_decayed), trace)


def adafactor(
    decay: Decay,
    b2_exponent: float = 0.8,
    b2_cap: float = 0.999,
    momentum: float = 0.9,
    eps: float = 1e-30,
    min_size_to_factor: int = 32,
    accumulator_dtype: str = "bfloat16",
) -> optax.GradientTransformation:
    """Adafactor (Shazeer and Stern 2018) in the form that trained the largest ViTs (Zhai 2022).

    Without update clipping and without a scale from the parameter.

    Args:
      decay: added after the direction.
      b2_exponent: the average of squared gradients keeps 1 - step^-b2_exponent, with step from 1,
      b2_cap: but at most this.
      momentum: decay rate of the average of the direction, which is not debiased; 0 for none.
      eps: added to the squared gradient.
      min_size_to_factor: an array is factored if its two largest axes are at least this long.
      accumulator_dtype: type in which the average is stored; "" for float32.
    """

    def kept(step, exponent):
        return jnp.minimum(b2_cap, 1 - (step + 1.0) ** -exponent)

    scale = optax.scale_by_factored_rms(
        decay_rate=b2_exponent,
        min_dim_size_to_factor=min_size_to_factor,
        epsilon=eps,
        decay_rate_fn=kept,
    )
    dtype = _dtype("accumulator_dtype", accumulator_dtype)
    average = optax.ema(momentum, debias=False, accumulator_dtype=dtype)
    return optax.chain(scale, average if momentum else optax.identity(), decay.add)


def lion(
    decay: Decay, b1: float = 0.9, b2: float = 0.99, mu_dtype: str = ""
) -> optax.GradientTransformation:
    """Lion (Chen et al. 2023): the sign of an average of the gradient.

    Args:
      decay: added after the direction.
      b1: share of the average in the direction.
      b2: decay rate of the average.
      mu_dtype: type in which the average is stored; "" for float32.
    """
    return optax.chain(optax.scale_by_lion(b1, b2, _dtype("mu_dtype", mu_dtype)), decay.add)


def rmsprop(
    decay: Decay, b2: float = 0.9, eps: float = 1e-8, momentum: float = 0.0
) -> optax.GradientTransformation:
    """RMSProp: the gradient over the root of the average of its square, then momentum.

    Args:
      decay: added after the direction.
      b2: decay rate of the average of the squared gradient, which starts at 0.
      eps: added to the average, inside the root.
      momentum: share of the sum of directions that is kept at each step; 0 for none.
    """
    trace = optax.trace(momentum) if momentum else optax.identity()
    return optax.chain(optax.scale_by_rms(b2, eps), trace, decay.add)


OPTIMIZERS = {f.__name__: f for f in (adam, sgd, lamb, lars, adafactor, lion, rmsprop)}

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
    multipliers, patterns = tuple(config["multipliers"]), tuple(config["decay"])
    multiplier = _rules(multipliers, "config.multipliers")
    decay_factor = _rules(patterns, "config.decay", default=1.0)

    def add_decay(updates, params):
        def one(path, update, param):
            factor = config["weight_decay"] * _factor(decay_factor, path, 0.0)
            return update + factor * param if factor else update

        return jax.tree_util.tree_map_with_path(one, updates, params)

    def scale(updates, params=None):
        def one(path, update):
            return config["learning_rate"] * _factor(multiplier, path, 1.0) * update

        return jax.tree_util.tree_map_with_path(one, updates)

    def is_decayed(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: _factor(decay_factor, path, 0.0) > 0, params
        )

    def labels(params):
        return jax.tree.map(
            lambda moves: _TRAINABLE if moves else _FROZEN, _trainable(params, multiplier)
        )

    chain = optax.chain(
        optax.clip_by_global_norm(config["clip"]) if config["clip"] else optax.identity(),
        _direction(config["optimizer"], Decay(optax.stateless(add_decay), is_decayed)),
        optax.stateless(scale),
        optax.scale_by_schedule(schedule),
        optax.scale(-1.0),
    )
    parts = optax.partition({_TRAINABLE: chain, _FROZEN: optax.set_to_zero()}, labels)

    def init(params):
        decayed(params, patterns)
        trainable(params, multipliers)
        return parts.init(params)

    return optax.GradientTransformation(init, parts.update)


def _direction(config: Any, decay: Decay) -> optax.GradientTransformation:
    values = dict(config.items())
    name = values.pop("optimizer")
    known = fields(name)
    for field in values:
        check_name(f"field of the optimizer {name}:", field, known)
    if name in OPTIMIZERS:
        return OPTIMIZERS[name](decay, **values)
    return optax.chain(_factory(name)(**values), decay.add)


def decayed(params: PyTree, patterns: Sequence[str]) -> dict[str, float]:
    """Returns {path: factor of the weight decay} of the parameters that decay.

    Args:
      params: arrays, or their shapes.
      patterns: "glob" or "glob=factor"; the first that matches counts, and without one a parameter
        does not decay.

    Raises:
      ValueError: a pattern that matches no parameter, with the nearest paths, or has no effect.
    """
    rules = _rules(patterns, "config.decay", default=1.0)
    _check_matches(params, rules, "config.decay")
    factors = {path: _first(rules, path, 0.0) for path in _paths(params)}
    return {path: factor for path, factor in factors.items() if factor}


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
    rules = _rules(multipliers, "config.multipliers")
    _check_matches(params, rules, "config.multipliers")
    tree = _trainable(params, rules)
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


Rules = Mapping[str, float]  # glob -> factor, in order of precedence


def _rules(patterns: Sequence[str], where: str, default: float | None = None) -> Rules:
    """Returns the rules of patterns "glob=factor"; `default` is the factor of a bare "glob"."""
    rules = {}
    for pattern in patterns:
        glob, equals, text = (part.strip() for part in str(pattern).partition("="))
        try:
            factor = float(text) if equals else float(default)
        except (TypeError, ValueError):
            factor = math.nan
        if not glob or not 0 <= factor < math.inf:
            form = '"glob=factor"' if default is None else '"glob" or "glob=factor"'
            raise ValueError(f"{where}: {pattern!r} is not {form} with a factor from 0")
        if glob in rules:
            raise ValueError(f"{where} has the pattern {glob!r} twice")
        rules[glob] = factor
    return rules


def _check_matches(params: PyTree, rules: Rules, where: str) -> None:
    """Raises ValueError for a rule that no parameter follows."""
    paths = _paths(params)
    winners = {path: _winner(rules, path) for path in paths}
    for glob in rules:
        matches = [path for path in paths if fnmatch.fnmatchcase(path, glob)]
        if not matches:
            raise ValueError(f"{where}: {glob!r} matches no parameter; {nearest(glob, paths)}")
        if glob not in winners.values():
            raise ValueError(
                f"{where}: {glob!r} has no effect, because {winners[matches[0]]!r} before it "
                "matches the same parameters and the first match counts"
            )


def _winner(rules: Rules, path: str) -> str | None:
    return next((glob for glob in rules if fnmatch.fnmatchcase(path, glob)), None)


def _first(rules: Rules, path: str, default: float) -> float:
    return rules.get(_winner(rules, path), default)


def _factor(rules: Rules, path: Any, default: float) -> float:
    return _first(rules, _name(path), default)


def _trainable(params: PyTree, rules: Rules) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda p, _: _factor(rules, p, 1.0) > 0, params)


def _paths(params: PyTree) -> list[str]:
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _dtype(field: str, name: str) -> Any:
    if name:
        check_name(f"type for {field}:", name, ("bfloat16", "float16", "float32"))
    return jnp.dtype(name) if name else None
