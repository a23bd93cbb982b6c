"""Convolution: every derivative of it is JAX's own, outside of loops and in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitcnn.layers.common import convolve

CASES = {
    "same": ((9, 9), (3, 3), 1, "SAME"),
    "strided": ((9, 8), (3, 3), 2, ((1, 1), (0, 1))),
    "valid": ((9, 7), (5, 3), 2, "VALID"),
    "stem": ((12, 12), (7, 7), 2, ((3, 3), (3, 3))),
    "point": ((6, 6), (1, 1), 2, "SAME"),
}


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def in_loop(f):
    """The gradient of each of three multiples of the maps, in a loop with the kernel outside."""
    return lambda x, kernel: jax.lax.map(lambda s: jax.grad(f)(s * x, kernel), jnp.arange(3.0))


DERIVATIVES = {
    "maps": jax.grad,
    "kernel": lambda f: jax.grad(f, 1),
    "loop": in_loop,
    "forward": lambda f: lambda x, k: jax.jvp(f, (x, k), (jnp.cos(x), jnp.cos(k)))[1],
    "each image": lambda f: lambda x, k: jax.vmap(jax.grad(lambda i: f(i[None], k)))(x),
    "each kernel": lambda f: (
        lambda x, k: jax.vmap(lambda s: jax.grad(f, 1)(x, s * k))(jnp.arange(3.0))
    ),
    "hessian vector": lambda f: lambda x, k: jax.jvp(lambda x: jax.grad(f)(x, k), (x,), (x,))[1],
    "rematerialised": lambda f: jax.grad(jax.checkpoint(f)),
}


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_jax(case):
    size, window, stride, padding = CASES[case]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*window, 3, 4)), jnp.float32)

    def everything(operation):
        def f(x, kernel):
            return jnp.sum(jnp.sin(operation(x, kernel, stride, padding)))

        return {name: take(f)(x, kernel) for name, take in DERIVATIVES.items()}

    run = jax.jit(everything, static_argnums=0)
    derivatives, expected = run(convolve), run(plain)
    for name in DERIVATIVES:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            derivatives[name] / scale, expected[name] / scale, atol=2e-6, err_msg=name
        )
