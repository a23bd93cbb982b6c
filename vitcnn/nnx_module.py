"""A module of flax.nnx as a linen module, so that it can be analysed like one.

`from_nnx` copies the state of the module into variables, and every call merges a fresh copy of the
module from them. What the module sows as `nnx.Intermediate` becomes sown intermediates; if it sows
nothing, the output of every submodule does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from vitcnn import watch


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """All of an nnx module but its variables.

    Attributes:
      name: name of its class.
      graph: its structure.
      state: the structure of its state, as JAX flattens it.
      random: its random keys and counters.
      places: (collection, path) of every array of the state, in the order of `state`.
      order: (attribute names of every module by path), to list what it captures.
    """

    name: str
    graph: Any
    state: Any
    random: Any
    places: Sequence[tuple[str, str]]
    order: Mapping[tuple[Any, ...], Sequence[str]]


class FromNnx(nn.Module):
    """A linen module that runs an nnx module, see `from_nnx`."""

    network: Network

    def __call__(self, images: Any, **call: Any) -> Any:
        """Runs the nnx module.

        Raises:
          ValueError: the module changes its state, as dropout and batch norm do in training.
        """
        module, unchanged = self._copy(), self._copy()
        run = nnx.capture(module, nnx.Intermediate, method_outputs=nnx.Intermediate)
        output, captured = run(images, **call)
        after = jax.tree.leaves(nnx.state(module, nnx.Not(nnx.Intermediate)))
        before = jax.tree.leaves(nnx.state(unchanged))
        if any(x is not y for x, y in zip(after, before, strict=True)):
            raise ValueError(
                f"{self.network.name} changes its state when it runs, as dropout and batch norm do "
                "in training: call its eval() before you make the Model"
            )
        if self.is_mutable_collection(watch.COLLECTION):
            for name, values in self._taps(module, captured, output).items():
                self.put_variable(watch.COLLECTION, name, values)
        return output

    def _copy(self) -> nnx.Module:
        """Returns the nnx module with these variables; it shares nothing with another copy."""
        arrays = [self.variables[collection][path] for collection, path in self.network.places]
        state = jax.tree.unflatten(self.network.state, arrays)
        random = jax.tree.map(lambda x: x, self.network.random)
        return nnx.merge(self.network.graph, state, random)

    def _taps(self, module: nnx.Module, captured: Any, output: Any) -> dict[str, tuple[Any, ...]]:
        """Returns the captured values by name: what the module sows, else outputs of submodules."""
        modules = dict(nnx.iter_modules(module))
        sown, outputs = {}, {}
        flat = sorted(nnx.to_flat_state(captured), key=lambda item: self._rank(item[0]))
        for path, variable in flat:
            values = variable.get_value()
            *place, last = path
            name = "/".join(map(str, place))
            if not callable(getattr(type(modules[tuple(place)]), last, None)):
                sown["/".join(map(str, path))] = values
            elif place and last == "__call__" and values[-1] is not output:
                outputs[name] = values
        if not sown and watch.is_array(output):
            outputs["logits"] = (output,)
        return sown or outputs

    def _rank(self, path: Sequence[Any]) -> tuple[int, ...]:
        """Returns the place of a captured value: attributes in order, the module's own last."""
        rank = []
        for i, key in enumerate(path):
            attributes = self.network.order.get(tuple(path[:i]), ())
            place = attributes.index(key) if key in attributes else len(attributes)
            rank.append(key if isinstance(key, int) else place)
        return tuple(rank)


def from_nnx(module: nnx.Module) -> tuple[FromNnx, dict[str, dict[str, Any]]]:
    """Returns an nnx module as a linen module, and its variables as they are now.

    Args:
      module: the nnx module, called as `module(images, **call)`.
    """
    order = {path: tuple(vars(part)) for path, part in nnx.iter_modules(module)}
    module = nnx.clone(module)  # which sorts the attributes
    nnx.pop(module, nnx.Intermediate)  # of an earlier run
    graph, random, state = nnx.split(module, nnx.RngState, ...)
    variables: dict[str, dict[str, Any]] = {}
    places = []
    for path, variable in nnx.to_flat_state(state):
        is_parameter = isinstance(variable, nnx.Param)
        collection = "params" if is_parameter else type(variable).__name__
        name = "/".join(map(str, path))
        variables.setdefault(collection, {})[name] = variable.get_value()
        places.append((collection, name))
    structure = jax.tree.structure(state)
    network = Network(type(module).__name__, graph, structure, random, tuple(places), order)
    return FromNnx(network), variables
