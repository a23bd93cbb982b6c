"""Compilation: what XLA is told about a program."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import jax
from jax.extend import core

# XLA hands these operations to the library YNNPACK, and leaves convolutions to Eigen.
_EIGEN_CONVOLUTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    )
}
_NEARLY_ALL = 0.9  # share of the multiplications


def options(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> dict[str, str]:
    """Returns the `compiler_options` with which a program is fastest.

    On a CPU, XLA gives each convolution to a library that uses one thread of it. A small ResNet,
    which does nearly all its work in convolutions larger than one pixel, is up to twice as fast
    with Eigen's, which use all threads. With these options a Transformer, and a ResNet with
    bottlenecks, takes up to 1.7 times as long. So the options follow from the operations of the
    program, not from a measurement: a resumed run computes the same bits.

    Args:
      jaxpr: of the program, such as `jax.jit(function).trace(*arguments).jaxpr`.

    Returns:
      {} on other devices, for other programs, and where XLA does not know the option.
    """
    if jax.default_backend() != "cpu" or not _known():
        return {}
    work = multiplications(jaxpr)
    mostly = work["conv_general_dilated"] > _NEARLY_ALL * sum(work.values())
    return dict(_EIGEN_CONVOLUTIONS) if mostly else {}


def multiplications(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> dict[str, int]:
    """Returns how many multiplications a program does in convolutions and in other products.

    Returns:
      {"conv_general_dilated": number, "dot_general": number}; the body of a loop counts once.
    """
    work = {"conv_general_dilated": 0, "dot_general": 0}
    for name, number in _multiplications(getattr(jaxpr, "jaxpr", jaxpr)):
        work[name] += number
    return work


@functools.cache
def _known() -> bool:
    """Whether this version of XLA takes the options; they are experimental."""
    try:
        jax.jit(lambda x: x, compiler_options=_EIGEN_CONVOLUTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _multiplications(jaxpr: core.Jaxpr) -> Iterator[tuple[str, int]]:
    """Yields (primitive, number of multiplications) of products; a loop's body counts once."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            kernel, axes = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
            outputs = math.prod(equation.outvars[0].aval.shape)
            yield name, outputs * math.prod(kernel) // kernel[axes.rhs_spec[0]]
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            rows = equation.invars[0].aval.shape
            summed = math.prod(rows[axis] for axis in contracted)
            yield name, math.prod(equation.outvars[0].aval.shape) * summed
        for parameter in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(parameter, core.Jaxpr | core.ClosedJaxpr):
                yield from _multiplications(getattr(parameter, "jaxpr", parameter))
