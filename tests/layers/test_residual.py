"""Stochastic depth and absent skip connections, by themselves."""

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitcnn.layers.residual import Skips


class Branches(nn.Module):
    """Two branches of one block."""

    skips: Skips
    number: int

    @nn.compact
    def __call__(self, x):
        return [self.skips.drop(self, self.number, x) for _ in range(2)]


def drop(skips, number, x, seed=0):
    branches = Branches(skips, number).apply(
        {}, jnp.asarray(x), rngs={"dropout": jax.random.key(seed)}
    )
    return np.stack(branches)


@pytest.mark.parametrize(
    ("rule", "count", "no_skip", "rates"),
    [
        ("linear", 5, (), [0, 0.1, 0.2, 0.3, 0.4]),
        ("uniform", 3, (), [0.4, 0.4, 0.4]),
        ("linear", 5, (2, 4), [0, 0.1, 0, 0.3, 0]),
        ("uniform", 3, (0,), [0, 0.4, 0.4]),
        ("linear", 1, (), [0]),
    ],
)
def test_rates_of_the_blocks(rule, count, no_skip, rates):
    skips = Skips(count, no_skip, 0.4, rule, train=True)
    np.testing.assert_allclose([skips.rate(i) for i in range(count)], rates, rtol=1e-12)
    assert [skips.has(i) for i in range(count)] == [i not in no_skip for i in range(count)]


def test_each_image_loses_a_branch_by_itself_and_the_others_are_scaled():
    x = np.random.default_rng(0).normal(size=(4000, 2, 3)).astype(np.float32)
    skips = Skips(4, (), 0.3, "linear", train=True)
    branches = drop(skips, 2, x)  # at the rate 0.2
    stays = (branches != 0).all(axis=(2, 3))
    assert ((branches != 0).any(axis=(2, 3)) == stays).all()  # an image is dropped as a whole
    expected = np.where(stays[..., None, None], x / np.float32(0.8), 0)
    np.testing.assert_allclose(branches, expected, rtol=1e-6)
    # Five standard errors of a share, and of the product of two independent shares.
    assert (np.abs(stays.mean(axis=1) - 0.8) < 5 * np.sqrt(0.2 * 0.8 / 4000)).all()
    assert abs((stays[0] & stays[1]).mean() - 0.64) < 5 * np.sqrt(0.64 * 0.36 / 4000)
    np.testing.assert_array_equal(drop(skips, 2, x), branches)
    other = (drop(skips, 2, x, seed=1) != 0).all(axis=(2, 3))
    assert abs((stays & other).mean() - 0.64) < 5 * np.sqrt(0.64 * 0.36 / 8000)


def test_without_rescaling_the_branches_that_stay_are_unchanged():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    branches = drop(Skips(2, (), 0.5, "linear", train=True, rescale=False), 1, x)
    stays = (branches != 0).any(axis=2)
    assert 0 < stays.mean() < 1
    np.testing.assert_array_equal(branches, np.where(stays[..., None], x, 0))


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (3, {"train": False}),
        (0, {"train": True}),
        (3, {"train": True, "stochastic_depth": 0.0}),
        (3, {"train": True, "no_skip": (3,)}),
    ],
)
def test_what_never_drops_needs_no_rng_and_computes_nothing(number, fields):
    skips = Skips(**{"count": 4, "no_skip": (), "stochastic_depth": 0.9, "rule": "linear"} | fields)
    jaxpr = jax.make_jaxpr(lambda x: Branches(skips, number).apply({}, x))(jnp.ones((2, 3)))
    assert not jaxpr.jaxpr.eqns


def test_the_type_of_a_branch_stays():
    branches = drop(Skips(2, (), 0.5, "uniform", train=True), 0, jnp.ones((9, 3), jnp.bfloat16))
    assert branches.dtype == jnp.bfloat16 and set(np.float32(branches).flat) == {0, 2}


def test_a_missing_rng_is_named():
    skips = Skips(2, (), 0.5, "linear", train=True)
    with pytest.raises(flax.errors.InvalidRngError, match='needs PRNG for "dropout"'):
        Branches(skips, 1).apply({}, jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stochastic_depth": 1.0}, "stochastic_depth is 1.0, expected a probability: at least 0"),
        ({"stochastic_depth": -0.1}, "stochastic_depth is -0.1, expected a probability"),
        ({"stochastic_depth": float("nan")}, "stochastic_depth is nan, expected a probability"),
        ({"rule": "lineal"}, "unknown stochastic_depth_rule 'lineal': did you mean 'linear'"),
        ({"no_skip": (4,)}, r"no_skip is \(4,\), but units are 0 to 3"),
        ({"no_skip": (-1, 2)}, r"no_skip is \(-1, 2\), but units are 0 to 3"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    valid = {"no_skip": (), "stochastic_depth": 0.1, "rule": "linear"}
    with pytest.raises(ValueError, match=message):
        Skips(count=4, train=True, parts="units", **{**valid, **fields})
