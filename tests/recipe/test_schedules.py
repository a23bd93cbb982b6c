"""Schedules against their formulas in float64, at every phase of a training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitcnn.recipe import durations, schedules

TOTAL, BATCH, IMAGES = 1000, 10, 200  # 20 steps an epoch
STEPS = np.array(
    [0, 1, 2, 37, 99, 100, 101, 250, 299, 300, 500, 549, 550, 750, 899, 900, 999, 1000]
)


def resolve(duration, where, total=TOTAL):
    return durations.steps(duration, batch=BATCH, images=IMAGES, total=total, where=where)


def make(name, total=TOTAL, **fields):
    resolver = functools.partial(resolve, total=total)
    return schedules.make({"schedule": name, **fields}, total, resolver)


def progress(step, warmup):
    return np.clip((step - warmup) / (TOTAL - warmup), 0, 1)


def oracle_cosine(step, warmup, end=0.0):
    return end + (1 - end) * 0.5 * (1 + np.cos(np.pi * progress(step, warmup)))


def oracle_linear(step, warmup, end=0.0):
    return (1 - progress(step, warmup)) * (1 - end) + end


def oracle_rsqrt(step, warmup, timescale=10_000, shift=0):
    before, after = 1 / np.sqrt(1 + shift / timescale), step + shift - warmup
    return np.where(step < warmup, before, 1 / np.sqrt(np.maximum(1 + after / timescale, 0.1)))


def oracle_stair(step, warmup):
    return np.array([1.0 if s < 300 else 0.1 if s < 550 else 0.02 for s in step])


CASES = {
    "cosine": ({}, oracle_cosine),
    "cosine to an end": ({"end": 0.01}, functools.partial(oracle_cosine, end=0.01)),
    "linear": ({}, oracle_linear),
    "linear to an end": ({"end": 1e-5}, functools.partial(oracle_linear, end=1e-5)),
    "rsqrt": ({}, oracle_rsqrt),
    "rsqrt with a shift": (
        {"timescale": "10 epochs", "shift": 50},
        functools.partial(oracle_rsqrt, timescale=200, shift=50),
    ),
    "stair": ({"boundaries": ("15 epochs", "55%"), "factors": (0.1, 0.02)}, oracle_stair),
    "stair without steps": ({}, lambda step, warmup: np.ones(len(step))),
    "constant": ({}, lambda step, warmup: np.ones(len(step))),
}


@pytest.mark.parametrize("case", CASES)
def test_schedule_is_decay_times_warmup_times_cooldown(case):
    fields, oracle = CASES[case]
    name = case.split()[0]
    step = STEPS.astype(np.float64)
    for warmup, cooldown, start in ((0, 0, 0.0), (100, 0, 0.0), (100, 0, 0.25), (50, 250, 0.0)):
        schedule = make(
            name, warmup=warmup, cooldown=f"{cooldown} steps", warmup_start=start, **fields
        )
        expected = oracle(step, warmup)
        if warmup:
            expected = expected * (start + (1 - start) * np.minimum(1, step / warmup))
        if cooldown:
            expected = expected * np.minimum(1, (TOTAL - step) / cooldown)
        values = jax.jit(schedule)(jnp.asarray(STEPS))
        assert values.dtype == jnp.float32 and values.shape == STEPS.shape
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=2e-7)
        if warmup and not start:
            assert float(schedule(0)) == 0


def test_ends_are_exact():
    assert float(make("cosine", warmup=10)(0)) == 0
    assert float(make("cosine")(0)) == 1
    assert float(make("cosine", end=0.25)(TOTAL)) == 0.25
    assert float(make("linear", end=0.25)(TOTAL)) == 0.25
    assert float(make("linear", cooldown="10%")(TOTAL)) == 0


def test_long_trainings_keep_their_digits():
    """A million steps, as for ViT-g; float32 has 24 bits."""
    schedule = make("rsqrt", total=10**6, warmup=10_000, cooldown=50_000)
    step = np.array([10_000, 123_457, 949_999, 950_001, 999_999])
    expected = 1 / np.sqrt(1 + (step - 1e4) / 1e4) * np.minimum(1, (1e6 - step) / 5e4)
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-6)


def test_rsqrt_goes_on_at_another_batch_size_without_a_jump():
    """At twice the batch after 500 steps: half the steps, half the timescale."""
    before = make("rsqrt", timescale=200)(500)
    after = make("rsqrt", timescale=100, shift=250)(0)
    assert float(before) == pytest.approx(float(after), rel=1e-6)


def test_bit_hyperrule():
    """Fewer than 500 000 images: warm-up to 500, a tenth from 3000, 6000 and 9000, 10 000 steps."""
    boundaries, factors = (3000, 6000, 9000), (0.1, 0.01, 0.001)
    schedule = make("stair", 10_000, warmup=500, boundaries=boundaries, factors=factors)
    step = np.array([0, 250, 500, 2999, 3000, 5999, 6000, 8999, 9000, 9999])
    rates = [0, 0.0015, 0.003, 0.003, 3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6]
    np.testing.assert_allclose(0.003 * schedule(step), rates, rtol=1e-6)


def test_deit():
    """Learning rate 1e-3, 5 epochs of warm-up from 1e-6, cosine to 1e-5, all of them absolute."""
    schedule = make("cosine", warmup="5 epochs", warmup_start=1e-3, end=1e-2)
    step = np.array([0, 50, 100, 550, 1000])
    rates = [1e-6, (1e-6 + 1e-3) / 2, 1e-3, (1e-3 + 1e-5) / 2, 1e-5]
    np.testing.assert_allclose(1e-3 * schedule(step), rates, rtol=1e-5)


def test_fields_are_those_of_the_decay_and_the_ramps():
    fields = schedules.fields("rsqrt")
    assert {name: field.default for name, field in fields.items()} == {
        "timescale": 10_000,
        "shift": 0,
        "warmup": 0,
        "cooldown": 0,
        "warmup_start": 0.0,
    }
    assert all(
        field.meaning for name in schedules.SCHEDULES for field in schedules.fields(name).values()
    )
    assert fields["warmup"].type is object and schedules.fields("cosine")["end"].type is float


BAD = {
    "name": (("cosin", {}), "unknown schedule 'cosin': did you mean 'cosine'"),
    "field": (("cosine", {"ends": 0.0}), "unknown field of the schedule cosine: 'ends': .*'end'"),
    "field of another": (("cosine", {"timescale": 5}), "unknown field of the schedule cosine:"),
    "duration": (("cosine", {"warmup": "5 parsecs"}), "config.schedule.warmup = .*unknown unit"),
    "long warm-up": (
        ("cosine", {"warmup": "50 epochs"}),
        "warmup is 1000 steps, but .* 1000 steps",
    ),
    "overlap": (("cosine", {"warmup": 600, "cooldown": "50%"}), "600 steps and a cool-down of 500"),
    "absolute end": (("linear", {"end": 10.0}), r"config.schedule.end = 10.0: .* relative"),
    "negative end": (("linear", {"end": -0.1}), r"config.schedule.end = -0.1"),
    "start": (("cosine", {"warmup_start": 2.0}), r"config.schedule.warmup_start = 2.0"),
    "timescale": (("rsqrt", {"timescale": 0}), "timescale = 0: expected at least one step"),
    "lengths": (("stair", {"boundaries": (5, 7), "factors": (0.1,)}), "2 boundaries and 1 factors"),
    "order": (("stair", {"boundaries": (7, 5), "factors": (0.1, 0.1)}), "each to be after the one"),
    "factor": (("stair", {"boundaries": (7,), "factors": (-1.0,)}), "factors = .*numbers from 0"),
    "huge": (("stair", {"boundaries": (7,), "factors": (float("inf"),)}), "factors = .*from 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case):
    (name, fields), message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make(name, **fields)


def test_trainings_of_no_and_one_step_have_any_warmup():
    for total in (0, 1):
        assert float(make("cosine", total=total, warmup=10)(0)) == 0
