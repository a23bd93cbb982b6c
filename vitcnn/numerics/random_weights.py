"""Random weights of a network, drawn without compiling the network.

Compiled as a whole, `module.init` takes ten seconds for a ViT-B, most of them for the forward pass,
which nobody needs, and for one program per array. Here the initialisation is traced, only the
operations that lead to the variables are kept, and arrays that are drawn alike, of one shape and
distribution, share one compiled program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core


def draw(init: Callable[[jax.Array], Any], seed: int) -> Any:
    """Returns what `init` returns for a key, to the bit, and computes nothing else on the way.

    Args:
      init: a pure function of a key, such as `lambda key: module.init(key, images)`; what
        leads to its values is compiled by itself, for each of them.
      seed: of the key.
    """
    root = jax.random.key(seed)
    closed, tree = jax.make_jaxpr(init, return_shape=True)(root)
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True)) | {jaxpr.invars[0]: root}
    source = {variable: eqn for eqn in jaxpr.eqns for variable in eqn.outvars}
    leaves = [_leaf(jaxpr, output, source, values) for output in jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _leaf(jaxpr: Any, output: Any, source: Mapping[Any, Any], values: dict[Any, Any]) -> jax.Array:
    """Returns one variable of the network; `values` collects the keys on the way."""
    if isinstance(output, core.Literal):
        return jnp.asarray(output.val)
    inputs, eqns, visited = [], [], set()

    def visit(variable):
        """Puts what leads to a variable into `eqns`, from the keys and constants on."""
        if isinstance(variable, core.Literal) or variable in visited:
            return
        visited.add(variable)
        if jnp.issubdtype(variable.aval.dtype, jax.dtypes.prng_key) or variable not in source:
            inputs.append(variable)
            return
        eqn = source[variable]
        for operand in eqn.invars:
            visit(operand)
        visited.update(eqn.outvars)
        eqns.append(eqn)

    visit(output)
    for variable in inputs:
        _key(variable, source, values)
    part = jaxpr.replace(invars=inputs, constvars=[], outvars=[output], eqns=eqns)
    (leaf,) = _program(_Part(part))(*(values[variable] for variable in inputs))
    return leaf


def _key(variable: Any, source: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """Returns the value of a key or constant, and of the keys that it was split from."""
    if isinstance(variable, core.Literal):
        return variable.val
    if variable not in values:
        eqn = source[variable]
        operands = [_key(operand, source, values) for operand in eqn.invars]
        results = eqn.primitive.bind(*operands, **eqn.params)
        results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return values[variable]


class _Part:
    """A jaxpr that equals every other of the same text."""

    def __init__(self, jaxpr: Any):
        self.jaxpr = jaxpr
        self.text = str(jaxpr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Part) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@functools.lru_cache(maxsize=256)
def _program(part: _Part) -> Any:
    """Returns the compiled function of a jaxpr."""
    return jax.jit(core.jaxpr_as_fun(core.ClosedJaxpr(part.jaxpr, [])))
