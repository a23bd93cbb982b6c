"""Precision of matrix products: JAX's names, and the algorithms that the backend has."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from vitcnn.lookup import check_name

NAMES = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")
# Types of the inputs and of the sum, and the number of products that make one: BF16_BF16_F32_X3.
# Those of 8 bits need inputs of 8 bits, which no network here has.
PRESETS = tuple(
    preset.name
    for preset in jax.lax.DotAlgorithmPreset
    if preset.name != "DEFAULT" and "F8" not in preset.name
)


def check_precision(name: str, where: str = "precision") -> None:
    """Checks the name of a precision; a preset is tried on this backend.

    Args:
      name: one of `NAMES`, or of `PRESETS`, the names of `jax.lax.DotAlgorithmPreset`.
      where: what messages call it.

    Warns:
      UserWarning: a preset on an accelerator, where it does not reach convolutions.

    Raises:
      ValueError: the name is unknown (the message has the nearest), or a preset that the backend
        lacks (the message lists those that it has).
    """
    check_name(where, name, (*NAMES, *PRESETS))
    if name in NAMES:
        return
    backend = jax.default_backend()
    if not _is_supported(name, backend):
        supported = [preset for preset in PRESETS if _is_supported(preset, backend)]
        raise ValueError(
            f"{where} {name!r} is not supported by the backend {backend!r}: it supports "
            f"{', '.join((*NAMES, *supported))}"
        )
    if backend != "cpu":
        warnings.warn(
            f"{where} {name!r} holds for matrix products. JAX has no such choice for convolutions, "
            f"which run at the default precision of the backend {backend!r}.",
            stacklevel=3,
        )


@functools.cache
def _is_supported(preset: str, backend: str) -> bool:
    """Returns whether the default backend, which the cache knows by name, compiles a product."""
    matrix = np.ones((16, 16), np.float32)
    product = jax.jit(lambda x, y: jnp.matmul(x, y, precision=preset))
    try:
        product.lower(matrix, matrix).compile()
    except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError):
        return False
    return True
