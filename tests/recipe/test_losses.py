"""Losses against their formulas in float64, and the first losses that recipes are known by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import flat, shapes_of

from vitcnn import models
from vitcnn.recipe import losses


def batch():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (5, 7))
    logits[0, 0], logits[0, 1] = 90, -90  # the sigmoid rounds to 1 and 0
    shares = rng.dirichlet(np.ones(7), 5)
    shares[1] = np.eye(7)[3]
    return logits.astype(np.float32), shares.astype(np.float32)


def test_softmax():
    logits, shares = batch()
    x, t = logits.astype(np.float64), shares.astype(np.float64)
    expected = -(t * (x - np.log(np.exp(x).sum(1, keepdims=True)))).sum(1)
    loss = jax.jit(losses.LOSSES["softmax"])(logits, shares)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_sigmoid():
    logits, shares = batch()
    x, t = logits.astype(np.float64), shares.astype(np.float64)
    expected = (t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)).sum(1)
    loss = jax.jit(losses.LOSSES["sigmoid"])(logits, shares)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_of_bfloat16_logits_are_float32(name):
    logits, shares = map(jnp.asarray, batch())
    coarse = logits.astype(jnp.bfloat16)
    loss = losses.LOSSES[name](coarse, shares)
    assert loss.dtype == jnp.float32
    same = losses.LOSSES[name](coarse.astype(jnp.float32), shares)
    np.testing.assert_array_equal(loss, same)


@pytest.mark.parametrize(
    ("classes", "bias", "known"), [(1000, -6.9, 7.9), (21_843, -10.0, 11.0), (10, -2.3, 3.3)]
)
def test_first_sigmoid_loss_of_a_head_bias(classes, bias, known):
    """Kernel 0 and bias b: (C - 1) softplus(b) + softplus(-b)."""
    target = losses.targets(jnp.array([3]), classes)
    (loss,) = losses.sigmoid(jnp.full((1, classes), bias), target)
    expected = (classes - 1) * np.log1p(np.exp(bias)) + np.log1p(np.exp(-bias))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(loss) == pytest.approx(known, abs=0.06)


def test_targets_with_smoothing():
    targets = losses.targets(jnp.array([2, 0]), 4, 0.1)
    expected = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    assert targets.dtype == jnp.float32
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    np.testing.assert_array_equal(losses.targets(jnp.array([1]), 3), [[0, 1, 0]])


def test_head_bias_fills_the_bias_of_every_head():
    module = models.create("vit", "mini/4", num_classes=4, depth=1, distilled=True)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes_of(module)[0]["params"])
    filled = flat(losses.head_bias(params, models.traits("vit").heads, -6.9))
    changed = {path for path, value in filled.items() if np.any(value)}
    assert changed == {"head/bias", "head_dist/bias"}
    np.testing.assert_array_equal(filled["head/bias"], np.full(4, -6.9, np.float32))
    with pytest.raises(ValueError, match=r"no head has a bias to set: the heads are \('fc',\)"):
        losses.head_bias(params, ("fc",), 1.0)
