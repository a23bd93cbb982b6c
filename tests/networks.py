"""Small networks with random weights that are away from zero, for the tests."""

import jax
import jax.numpy as jnp
import numpy as np


def shapes_of(module):
    """Returns (shapes of the variables of a module, shape of one image)."""
    height, width = np.broadcast_to(module.image_size, 2)
    images = jax.ShapeDtypeStruct((1, int(height), int(width), 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images), images


def flat(tree):
    """Returns the leaves of a tree of variables by path, "Transformer/encoder_norm/scale"."""
    return {
        "/".join(str(k.key) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def randomised(model, seed=0):
    """Returns a model with noise on all weights: the heads and last norms of a new one are zero."""
    rng = np.random.default_rng(seed)
    model.variables = jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(0, 0.1, x.shape).astype(np.float32), model.variables
    )
    return model
