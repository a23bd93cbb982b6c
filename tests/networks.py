"""Small networks with random weights that are away from zero, for the tests."""

import jax
import jax.numpy as jnp
import numpy as np

from vitcnn import models, taps


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


def assert_taps_equal(module, variables, images, expected, atol):
    """Fails unless the taps of a module are those expected, in order, and as large as `atol` says.

    `expected` is name -> array, `atol` a share of the largest magnitude of each.
    """
    table = taps.tabulate(module, variables, images)
    assert list(table) == list(expected)
    run = jax.jit(lambda v, x: taps.forward(module, v, x, table, list(table)))
    logits, got = run(variables, images)
    np.testing.assert_array_equal(logits, got["logits"])
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        np.testing.assert_allclose(got[name], value, atol=atol * np.abs(value).max(), err_msg=name)


def assert_bfloat16_keeps_float32_parameters(family, variant, variables, **fields):
    """Fails unless a network in bfloat16 has float32 parameters and nearly the same logits.

    Sums, exponentials and roots, of norms and of the softmax, have to be in float32.
    """
    module = models.create(family, variant, **fields, dtype=jnp.bfloat16)
    shapes, image = shapes_of(module)
    shape = (2, *image.shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    exact = jax.jit(models.create(family, variant, **fields).apply)(variables, images)
    logits = jax.jit(module.apply)(variables, images)
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
    difference = np.float32(logits) - exact
    assert np.sqrt(np.mean(difference**2) / np.mean(np.square(exact))) < 0.02
    program = jax.make_jaxpr(module.apply)(variables, images)
    in_bfloat16 = set(operations(program.jaxpr, jnp.bfloat16))
    assert "dot_general" in in_bfloat16
    assert not {"exp", "rsqrt", "sqrt", "reduce_sum"} & in_bfloat16


def operations(jaxpr, dtype):
    """Yields the names of the operations of a program that read an array of a type."""
    for equation in jaxpr.eqns:
        if any(getattr(operand.aval, "dtype", None) == dtype for operand in equation.invars):
            yield equation.primitive.name
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(part):
                yield from operations(getattr(part, "jaxpr", part), dtype)


def is_program(part):
    return hasattr(part, "eqns") or hasattr(part, "jaxpr")
