"""A training config that takes a second, for the tests of the loop and the processes they start."""

import jax
import numpy as np

from vitcnn import config as configs


def tiny(**changes):
    config = configs.training()
    config.model = configs.network("vit", "mini/4", num_classes=8, depth=1, width=48, mlp_dim=64)
    config.data = configs.source("scenes", size=64, texture=1.0)
    config.batch, config.steps, config.log_every = 16, 6, 2
    config.weight_decay = 1e-4
    config.schedule = configs.schedule("cosine", warmup=2)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def validation(size=40, **fields):
    """Returns evaluations with the accuracy on other scenes."""
    data = configs.source("scenes", size=size, split="test")
    return {"val": configs.evaluation(data=data, **fields)}


def constant(**fields):
    return configs.schedule("constant", **fields)


def weights(model):
    return {
        jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(model.variables)
    }


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)
