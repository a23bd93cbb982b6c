"""Schedules: the learning rate at each step as a share of its peak, a pure function of the step.

A schedule is a decay (cosine, linear, rsqrt, stair or constant) times a warm-up times a cool-down:

    decay(step) x min(1, step / warmup) x min(1, (total - step) / cooldown)

Decays start when the warm-up ends. Every end and start is relative to the peak: a recipe that goes
from 1e-3 to an absolute 1e-5 has `end = 0.01`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitcnn.lookup import Field, check_name, fields_of
from vitcnn.recipe.durations import Duration

Step = Int[Array, "*steps"]
Level = Float[Array, "*steps"]  # float32, 1 at the peak
Resolve = Callable[[Duration, str], int]  # (duration, name of its field) -> number of steps


@dataclasses.dataclass(frozen=True)
class Span:
    """The steps that a decay covers.

    Attributes:
      warmup: number of steps before the decay starts.
      total: number of steps of the training.
      resolve: turns durations into steps.
    """

    warmup: int
    total: int
    resolve: Resolve

    def progress(self, step: Step) -> Level:
        """Returns the share of the decay that is over, 0 during the warm-up and 1 at the end."""
        length = max(self.total - self.warmup, 1)
        return jnp.clip((step - self.warmup) / length, 0, 1).astype(jnp.float32)


def constant(span: Span) -> Callable[[Step], Level]:
    """The peak at every step."""
    return lambda step: jnp.ones_like(step, jnp.float32)


def cosine(span: Span, end: float = 0.0) -> Callable[[Step], Level]:
    """Half a period of a cosine, from the peak to `end` (Loshchilov and Hutter 2017).

    Args:
      span: the steps of the decay.
      end: level at the end of the training, relative to the peak.
    """
    _check_share("end", end)
    return lambda step: end + (1 - end) * (1 + jnp.cos(jnp.pi * span.progress(step))) / 2


def linear(span: Span, end: float = 0.0) -> Callable[[Step], Level]:
    """A straight line from the peak to `end`.

    Args:
      span: the steps of the decay.
      end: level at the end of the training, relative to the peak.
    """
    _check_share("end", end)
    return lambda step: 1 + (end - 1) * span.progress(step)


def rsqrt(span: Span, timescale: Duration = 10_000, shift: Duration = 0) -> Callable[[Step], Level]:
    """1 / sqrt(1 + (steps since the warm-up + shift) / timescale), which needs no end.

    With a cool-down, one long training and short continuations give the accuracy at every length
    (Zhai et al. 2022).

    Args:
      span: the steps of the decay.
      timescale: duration after which the level is 1 / sqrt(2).
      shift: duration by which the decay is ahead, so that a training can go on at another batch
        size without a jump. The peak is then below 1, also during the warm-up.
    """
    timescale_steps = span.resolve(timescale, "config.schedule.timescale")
    shift_steps = span.resolve(shift, "config.schedule.shift")
    if timescale_steps < 1:
        raise ValueError(f"config.schedule.timescale = {timescale!r}: expected at least one step")

    def level(step):
        decayed = jnp.maximum(step - span.warmup, 0) + shift_steps
        return jax.lax.rsqrt(1 + decayed / jnp.float32(timescale_steps))

    return level


def stair(
    span: Span, boundaries: tuple[Duration, ...] = (), factors: tuple[float, ...] = ()
) -> Callable[[Step], Level]:
    """The peak, and from each boundary on another level.

    Args:
      span: the steps of the decay.
      boundaries: durations from the start of the training, such as ("30 epochs", "60 epochs").
      factors: level from each boundary on, relative to the peak, such as (0.1, 0.01).
    """
    if len(boundaries) != len(factors):
        raise ValueError(
            f"config.schedule has {len(boundaries)} boundaries and {len(factors)} factors: "
            "expected one factor for each boundary"
        )
    where = "config.schedule.boundaries"
    steps = [span.resolve(boundary, where) for boundary in boundaries]
    if any(b <= a for a, b in itertools.pairwise(steps)):
        raise ValueError(f"{where} = {tuple(boundaries)}: expected each to be after the one before")
    try:
        levels = np.array([1.0, *factors], np.float32)  # of text too: a flag gives "0.1,0.01"
    except ValueError:
        levels = np.array([np.nan])
    if not (np.isfinite(levels).all() and levels.min() >= 0):
        raise ValueError(f"config.schedule.factors = {tuple(factors)}: expected numbers from 0")

    def level(step):
        reached = jnp.searchsorted(jnp.asarray(steps, jnp.int32), step, side="right")
        return jnp.asarray(levels)[reached]

    return level


SCHEDULES = {f.__name__: f for f in (cosine, linear, rsqrt, stair, constant)}


@dataclasses.dataclass(frozen=True)
class Ramps:
    """The fields that every schedule has.

    Attributes:
      warmup: duration in which the learning rate rises linearly to its peak.
      cooldown: duration at the end of the training in which the learning rate falls linearly to 0.
      warmup_start: level at step 0 if there is a warm-up, relative to the peak.
    """

    warmup: Duration = 0
    cooldown: Duration = 0
    warmup_start: float = 0.0


def fields(name: str) -> dict[str, Field]:
    """Returns the fields of a schedule; a ValueError gives the nearest names."""
    check_name("schedule", name, SCHEDULES)
    return {**fields_of(SCHEDULES[name], ("span",)), **fields_of(Ramps)}


def make(config: Any, total: int, resolve: Resolve) -> Callable[[Step], Level]:
    """Returns a schedule: step, counted from 0, -> float32 factor of the learning rate.

    Args:
      config: {"schedule": name, field: value}; fields that are absent have their defaults.
      total: number of steps of the training.
      resolve: (duration, name of its field) -> number of steps.

    Raises:
      ValueError: an unknown name, or a value that does not fit; the warm-up and the cool-down must
        not overlap, except in a training of 0 or 1 steps, which only tries things out.
    """
    values = dict(config.items())
    name = values.pop("schedule")
    known = fields(name)
    for field in values:
        check_name(f"field of the schedule {name}:", field, known)
    ramps = Ramps(**{field: values.pop(field) for field in fields_of(Ramps) if field in values})
    warmup = resolve(ramps.warmup, "config.schedule.warmup")
    cooldown = resolve(ramps.cooldown, "config.schedule.cooldown")
    start = ramps.warmup_start
    _check_share("warmup_start", start)
    if total > 1 and warmup >= total:
        raise ValueError(
            f"config.schedule.warmup is {warmup} steps, but the whole training is {total} steps"
        )
    if total > 1 and warmup + cooldown > total:
        raise ValueError(
            f"config.schedule has a warm-up of {warmup} steps and a cool-down of {cooldown}, more "
            f"than the {total} steps of the training"
        )
    decay = SCHEDULES[name](Span(warmup, total, resolve), **values)

    def schedule(step):
        step = jnp.asarray(step, jnp.int32)
        level = decay(step)
        if warmup:
            level *= start + (1 - start) * jnp.minimum(1, step / warmup)
        if cooldown:
            level *= jnp.clip((total - step) / cooldown, 0, 1)
        return level.astype(jnp.float32)

    return schedule


def _check_share(field: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(
            f"config.schedule.{field} = {value!r}: expected a number from 0 to 1, because it is "
            "relative to the peak of the learning rate"
        )
