"""Random weights are those of `module.init`, to the bit, for every family."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitcnn import models
from vitcnn.numerics import random_weights

NETWORKS = [
    ("vit", "mini/4", {"depth": 1, "distilled": True, "registers": 2, "layer_scale": 0.1}),
    ("vit", "mini/4", {"depth": 1, "pool": "gap", "norm_pooled": True, "pre_logits": 6}),
    ("resnet", "mini", {"units": (1, 1), "widths": (32, 64)}),
    ("resnet", "50", {"units": (1,), "widths": (8,), "image_size": 32}),
    ("bit", "R50x1", {"units": (1,), "widths": (32,), "image_size": 32}),
    ("mixer", "S/32", {"depth": 1, "width": 24, "channels_mlp_dim": 32, "image_size": 64}),
]


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
        assert x.dtype == y.dtype


@pytest.mark.parametrize(("family", "variant", "fields"), NETWORKS)
def test_they_are_those_of_init(family, variant, fields):
    module = models.create(family, variant, **fields)
    images = jnp.zeros((1, module.image_size, module.image_size, 3))
    init = lambda key: module.init(key, images)  # noqa: E731
    assert_same_bits(random_weights.draw(init, 7), jax.jit(init)(jax.random.key(7)))


class Strange(nn.Module):
    """Variables that depend on each other's keys, on constants and on nothing."""

    @nn.compact
    def __call__(self, x):
        def pair(key, shape):
            first, second = jax.random.split(key)
            return jax.random.normal(first, shape) + jax.random.bits(second, shape) % 2

        table = jnp.asarray(np.arange(3.0))  # a constant of the program
        a = self.param("pair", pair, (3,))
        b = self.param("table", lambda key: table + 1)
        c = self.param("number", lambda key: 3.0)
        d = self.variable("state", "mean", lambda: jnp.zeros(3))
        return x * a * b * c + d.value


def test_other_initialisers_too():
    init = lambda key: Strange().init(key, jnp.ones((2, 3)))  # noqa: E731
    assert_same_bits(random_weights.draw(init, 3), jax.jit(init)(jax.random.key(3)))
