"""Directions: what each optimizer makes of a gradient, with weight decay where it belongs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from vitcnn.lookup import check_name


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
    """Adafactor (Shazeer and Stern 2018) as it trained the largest ViTs (Zhai et al. 2022).

    Updates are neither clipped nor scaled by the size of the parameter.

    Args:
      decay: added after the direction.
      b2_exponent: the average of the squared gradient keeps 1 - step^-b2_exponent of itself, with
        steps counted from 1.
      b2_cap: what it keeps at most; 0.95 is steadier.
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


def _dtype(field: str, name: str) -> Any:
    if name:
        check_name(f"type for {field}:", name, ("bfloat16", "float16", "float32"))
    return jnp.dtype(name) if name else None
