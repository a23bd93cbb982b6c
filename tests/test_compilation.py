"""Compilation: the options follow from the operations, and change no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitcnn
from vitcnn import compilation

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
NETWORKS = {  # whether nearly all multiplications are in convolutions
    ("resnet", "mini"): True,
    ("resnet", "20"): True,
    ("resnet", "50"): False,
    ("vit", "mini/4"): False,
    ("mixer", "S/32"): False,
}


@pytest.mark.parametrize(("family", "variant"), NETWORKS)
def test_only_networks_of_convolutions_have_options(family, variant):
    model = vitcnn.load(family, variant, image_size=32)

    def step(variables, images):
        return jax.grad(lambda v: jnp.sum(model.forward(v, images, ())[0]))(variables)

    jaxpr = jax.make_jaxpr(step)(model.variables, IMAGES)
    assert bool(compilation.options(jaxpr)) == NETWORKS[family, variant]


def test_multiplications_are_counted_in_loops_and_gradients():
    """y = x * kernel: 2 x 8 x 8 outputs of 5 channels, each of 3 x 3 x 4 products."""
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 5))

    def f(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    forward, nothing = {"conv_general_dilated": 2 * 8 * 8 * 5 * 9 * 4}, {"dot_general": 0}
    count = compilation.multiplications
    assert count(jax.make_jaxpr(f)(x, kernel)) == forward | nothing
    loop = jax.jit(lambda x, k: jax.lax.map(lambda s: f(s * x, k), jnp.arange(3.0)))
    assert count(jax.make_jaxpr(loop)(x, kernel)) == forward | nothing
    product = jax.make_jaxpr(lambda a, b: a @ b)(jnp.ones((2, 6, 7)), jnp.ones((7, 3)))
    assert count(product) == {"conv_general_dilated": 0, "dot_general": 2 * 6 * 3 * 7}


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_EIGEN_CONVOLUTIONS", {"xla_cpu_of_another_year": "1"})
    compilation._known.cache_clear()
    try:
        model = vitcnn.load("resnet", "mini")
        jaxpr = jax.make_jaxpr(lambda v, x: model.forward(v, x, ()))(model.variables, IMAGES)
        assert compilation.options(jaxpr) == {}
    finally:
        compilation._known.cache_clear()


def test_a_model_runs_inside_of_other_programs_too():
    model = vitcnn.load("resnet", "mini", num_classes=3)
    kernel = np.random.default_rng(1).normal(size=model.variables["params"]["head"]["kernel"].shape)
    model.variables["params"]["head"]["kernel"] = jnp.asarray(kernel, jnp.float32)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    logits, _ = model.run(images)
    inside, _ = jax.jit(model.run)(images)
    np.testing.assert_allclose(inside, logits, atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(model.run(x)[0]))(images)
    direction = jnp.zeros_like(images).at[0, 9, 9].set(1e-2)
    change = jnp.sum(model.run(images + direction)[0] - model.run(images - direction)[0])
    np.testing.assert_allclose(jnp.sum(gradient * direction) * 2, change, rtol=2e-2)
