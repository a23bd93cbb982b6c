"""A module of flax.nnx as a linen module, so that it can be analysed like one.

`from_nnx` copies the state of the module into variables, and every call merges a fresh copy of the
module from them. What the module sows as `nnx.Intermediate` becomes sown intermediates; if it sows
nothing, the output of every submodule does.
"""

from __future__ import annotations

import dataclasses
import warnings
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
        """Runs the nnx module."""
        module = self._copy()
        output, captured = nnx.capture(module, nnx.Intermediate)(images, **call)
        if not self.is_mutable_collection(watch.COLLECTION):
            return output
        arrays = self._named(module, captured)
        if not arrays:
            module = self._copy()
            run = nnx.capture(module, nnx.Intermediate, method_outputs=nnx.Intermediate)
            try:
                output, captured = run(images, **call)
            except Exception as error:  # inside nnx.cond or nnx.vmap it depends on the network
                if watch.current() is None or watch.current().wanted is None:
                    warnings.warn(
                        f"left out of the taps: outputs of the submodules of {self.network.name}, "
                        f"because Flax cannot capture them: {str(error).splitlines()[0]}",
                        stacklevel=2,
                    )
                captured = nnx.State({})
            arrays = self._named(module, captured)
            for name, values in list(arrays.items()):  # one name per array
                arrays[name] = values[:-1] if values[-1] is output else values
            clash = arrays.get("logits") or not watch.is_array(output)
            root = "output" if clash else "logits"
            for part, array in watch.parts(output).items():
                if watch.is_array(array):
                    arrays[root + part] = (array,)
        for name, values in arrays.items():
            self.put_variable(watch.COLLECTION, name, values)
        return output

    def _copy(self) -> nnx.Module:
        """Returns the nnx module with these variables; it shares nothing with another copy."""
        arrays = [self.variables[collection][path] for collection, path in self.network.places]
        state = jax.tree.unflatten(self.network.state, arrays)
        random = jax.tree.map(lambda x: x, self.network.random)
        return nnx.merge(self.network.graph, state, random)

    def _named(self, module: nnx.Module, captured: Any) -> dict[str, tuple[Any, ...]]:
        """Returns captured values by name: what modules sow, and what their `__call__` returns."""
        modules = dict(nnx.iter_modules(module))
        arrays = {}
        flat = sorted(nnx.to_flat_state(captured), key=lambda item: self._rank(item[0]))
        for path, variable in flat:
            *place, last = path
            is_method = callable(getattr(type(modules[tuple(place)]), last, None))
            if not is_method:
                arrays["/".join(map(str, path))] = variable.get_value()
            elif place and last == "__call__":
                arrays["/".join(map(str, place))] = variable.get_value()
        return arrays

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

    Raises:
      ValueError: the module is in training mode, or this Flax is too old.
    """
    if not hasattr(nnx, "capture"):
        raise ValueError("modules of flax.nnx need a newer Flax, one that has nnx.capture")
    for path, part in nnx.iter_modules(module):
        for flag in ("deterministic", "use_running_average"):
            if vars(part).get(flag) is False:
                raise ValueError(
                    f"{'.'.join(map(str, (type(module).__name__, *path, flag)))} is False, for "
                    "training: call eval() of the network before you make the Model"
                )
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
