"""Edits: what a caller puts in the place of taps, inside the forward pass.

An edit is an array, or a function of the value of the tap. Arrays are traced: other numbers do not
compile again, and JAX differentiates with respect to them and maps over them. Functions are static:
a function that is defined anew compiles anew.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Edit = ArrayLike | Callable[[jax.Array], jax.Array]


def check(name: str, edit: Any, shape: tuple[int, ...]) -> None:
    """Checks the edit of a tap before anything is traced.

    Args:
      name: the tap.
      edit: an array, or a function, which is only checked when it is called.
      shape: the shape of the tap, images first.

    Raises:
      ValueError: an array does not broadcast to the shape.
      TypeError: the edit is neither an array of real numbers nor a function.
    """
    if callable(edit):
        return
    is_number = isinstance(edit, numbers.Real)
    dtype = jnp.result_type(edit) if is_number else getattr(edit, "dtype", None)
    if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in (np.integer, np.floating)):
        kind = type(edit).__name__ if dtype is None else f"{dtype} array"
        raise TypeError(
            f"the edit of tap {name!r} is a {kind}: expected an array of real numbers, a number, "
            "or a function of the value of the tap"
        )
    try:
        broadcasts = np.broadcast_shapes(np.shape(edit), shape) == shape
    except ValueError:
        broadcasts = False
    if not broadcasts:
        raise ValueError(
            f"the edit of tap {name!r} is {list(np.shape(edit))}, which does not broadcast to "
            f"{list(shape)}, the shape of the tap"
        )


def apply(name: str, edit: Edit, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the value of a tap after its edit.

    Raises:
      ValueError: the edit is a function that changes the shape or the dtype.
    """
    if not callable(edit):
        return jnp.broadcast_to(jnp.asarray(edit).astype(value.dtype), value.shape)
    new = edit(value)
    have, expected = (
        f"{getattr(x, 'dtype', type(x).__name__)} {list(np.shape(x))}" for x in (new, value)
    )
    if have != expected:
        raise ValueError(
            f"the edit of tap {name!r} returns {have} for {expected}: a function has to keep shape "
            "and dtype (an array in its place broadcasts and is cast)"
        )
    return jnp.asarray(new)
