"""Watch: one run of a network, seen from outside, and the arrays that leave it on the way.

An array leaves a network as a variable. Flax carries variables out of the transformations that run
their body once, such as `nn.remat` and `nn.jit`; an array that Python merely kept would belong to a
trace that is over. It does not carry them out of `nn.scan`, `nn.vmap` and `nn.RNN`, and nothing
carries them out of `jax.jit`, `jax.vmap` or `jax.lax.scan` that a module calls itself. What lies in
there is out of reach, and `Watch` says so.

Names and order are recorded while JAX traces, but `nn.jit` does not trace a module again that it
has seen. So its key has to change: the collection has another name for every choice of arrays, and
for every run with edits.
Within one run `nn.jit` shares a trace between modules that have the same fields. A variable of each
module, which holds its path, keeps them apart (`Manner.apart`); few networks need it.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import tracers
from flax.core.scope import Scope
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

# The collection of declared taps. Any other would leak into `init` and into checkpoints.
COLLECTION = "intermediates"

IN_JAX = (
    "it is computed inside a transformation of JAX that the network calls itself, such as jax.jit, "
    "jax.checkpoint, jax.vmap, jax.lax.scan or jax.lax.cond; use nn.jit or nn.remat instead, or "
    "call vitcnn.tap on the result"
)
IN_FLAX = (
    "it is computed inside a transformation of Flax that returns nothing but its result, such as "
    "nn.scan, nn.vmap or nn.RNN, or in a module that the network applies itself; call vitcnn.tap "
    "on the result"
)
IN_BRANCH = (
    "it is computed inside a transformation of Flax, and the network has an nn.cond or nn.switch "
    "whose branches compute different arrays"
)
IN_SHARED_TRACE = "nn.jit shares its trace with another module, whose array it cannot be told from"

_watch: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("vitcnn_watch", default=None)
_runs = itertools.count()


@dataclasses.dataclass(frozen=True)
class Manner:
    """How arrays are captured.

    Attributes:
      outputs: whether to capture what submodules return.
      lifted: whether to capture inside transformations of Flax. Branches of `nn.cond` have to
        return the same variables, so there it can fail.
      apart: whether to keep `nn.jit` from sharing a trace between modules.
    """

    outputs: bool = True
    lifted: bool = True
    apart: bool = False


@dataclasses.dataclass(frozen=True)
class Output:
    """An array that a submodule returns.

    Attributes:
      name: its name, such as "encoder/dense" or "encoder.decode/1:mask", see `tabulate`.
      array: the array inside of the transformation that computes it.
    """

    name: str
    array: Any


class Watch:
    """What one run of a network declares and returns, in the order of execution.

    Attributes:
      wanted: names of the arrays to capture, None for all.
      edits: name of an array -> function from its value to what takes its place.
      written: names of the arrays that were edited so far.
      infos: name -> description of each declared tap and alias.
      left_out: name of a declared tap that is out of reach -> why.
      outputs: arrays that submodules return, as far as they are in reach.
      outputs_left_out: path of a submodule whose output is out of reach -> why.
      returned: path of a module -> its place in the order in which modules return.
    """

    def __init__(
        self,
        wanted: frozenset[str] | None,
        manner: Manner,
        edits: Mapping[str, Callable[[Any], Any]] | None = None,
    ):
        """Makes a watch for one run.

        Args:
          wanted: names of the arrays to capture, None for all.
          manner: how to capture them.
          edits: name of an array -> function from its value to what takes its place.
        """
        self.wanted = wanted
        self.edits = dict(edits or {})
        self.written: set[str] = set()
        self.infos: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self.outputs: list[Output] = []
        self.outputs_left_out: dict[str, str] = {}
        self.returned: dict[str, int] = {}
        self._manner = manner
        key = next(_runs) if wanted is None or edits else (sorted(wanted), manner)
        self._collection = f"outputs of submodules {key}"
        self._calls: list[tuple[tuple[str, ...], bool]] = []  # (path, whether it is in JAX) so far

    def run(
        self, module: nn.Module, variables: Any, images: Any, call: Mapping[str, Any]
    ) -> tuple[Any, Mapping[str, Any], dict[str, Any]]:
        """Runs the network.

        Returns:
          (output, intermediates as Flax returns them, captured outputs of submodules by name).
        """
        self._level = tracers.current_trace()
        # Intermediates of an earlier run would be taken for those of this one.
        variables = {name: v for name, v in variables.items() if name != COLLECTION}
        if self._manner.apart:
            variables[self._collection] = _marks(variables)
        mutable = [COLLECTION, self._collection]
        with self._watching(), nn.intercept_methods(self._note):
            output, state = module.apply(variables, images, mutable=mutable, **call)
        outputs = {}
        for path, array in flatten(state.get(self._collection, {})):
            name = "/".join(path[:-1]) + path[-1].removeprefix(_OUTPUT)
            if array is None:
                continue
            if name in outputs:
                raise ValueError(
                    f"two arrays of the network are called {name!r}: rename a submodule, or name "
                    "the arrays with vitcnn.tap"
                )
            outputs[name] = array
        return output, state.get(COLLECTION, {}), outputs

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        token = _watch.set(self)
        try:
            yield
        finally:
            _watch.reset(token)

    def write(self, name: str, value: Any) -> Any:
        """Returns what the network goes on with in the place of an array: the array, or an edit."""
        if name not in self.edits:
            return value
        self.written.add(name)
        return self.edits[name](value)

    def write_parts(self, result: Any, name: Callable[[str], str]) -> Any:
        """Does the same for every array of a tuple, dict or dataclass.

        Args:
          result: an array, or the tuple, dict or dataclass.
          name: ending of a part, see `parts` -> name of the array.
        """
        names = [name(part) for part in parts(result)]
        if not any(name in self.edits for name in names):
            return result
        leaves, structure = jax.tree.flatten(result)
        written = [self.write(*pair) for pair in zip(names, leaves, strict=True)]
        return jax.tree.unflatten(structure, written)

    def mark(self, name: str, value: Any) -> Any:
        """Returns the value; in a run that lists the taps, `marks_read` says whether it is read."""
        return value if self.wanted is not None else checkpoint_name(value, _MARK + name)

    def obstacle(self, scope: Scope, collection: str = COLLECTION) -> str | None:
        """Returns why no array leaves a scope as a variable of a collection, None if it does."""
        now = tracers.current_trace()
        at: Scope | None = scope
        while at is not None:  # up to the border of a transformation of Flax
            if at.trace_level != now:
                return IN_JAX
            at = at.parent
        if self._calls and self._calls[-1][1]:
            return IN_JAX
        if not self._manner.lifted and now != self._level:
            return IN_BRANCH
        return None if scope.is_mutable_collection(collection) else IN_FLAX

    def _note(self, call_next, args, kwargs, context):
        """Sees one call of a method of a module."""
        module, method = context.module, context.method_name
        if module.scope is None or method == "setup":
            return call_next(*args, **kwargs)
        path, caller = module.scope.path, self._calls[-1][0] if self._calls else ()
        # A function that `nn.cond` or `nn.scan` takes comes as a method that no class has. A module
        # that calls a method of itself, or of the class that it extends, has no output yet.
        is_method = hasattr(type(module), method)
        is_output = is_method and path not in ((), caller)
        obstacle = self.obstacle(module.scope, self._collection)
        self._calls.append((path if is_method else caller, obstacle == IN_JAX))
        try:
            result = call_next(*args, **kwargs)
        finally:
            self._calls.pop()
        if not is_output:
            return result
        self.returned.setdefault("/".join(path), len(self.returned))
        if self._manner.outputs:
            arrays = {part: array for part, array in parts(result).items() if is_array(array)}
            if obstacle and arrays:
                self.outputs_left_out.setdefault("/".join(path) + _method(method), obstacle)
            elif arrays:
                return self._capture(module, method, result)
        return result

    def _capture(self, module: nn.Module, method: str, result: Any) -> Any:
        """Edits the arrays that a call returns, and puts them into the variables of its module."""
        call, n = _OUTPUT + _method(method), 0
        # Counted in the variables, not in Python: they know the calls that `nn.jit` did not trace.
        while module.has_variable(self._collection, f"{call}/{n} "):
            n += 1
        module.put_variable(self._collection, f"{call}/{n} ", None)
        suffix = _method(method) + (f"/{n}" if n else "")
        path = "/".join(module.scope.path)
        result = self.write_parts(result, lambda part: path + suffix + part)
        for part, array in parts(result).items():
            name = path + suffix + part
            if not is_array(array):
                continue
            if self.wanted is None or name in self.wanted:
                module.put_variable(self._collection, _OUTPUT + suffix + part, array)
            self.outputs.append(Output(name, array))
        return result


_OUTPUT = "output "  # starts the name of a variable; no module is called so


def current() -> Watch | None:
    """Returns the watch of the run that is going on, None outside of one."""
    return _watch.get()


_MARK = "tap "


def marks_read(program: core.Jaxpr) -> set[str]:
    """Returns the names of the arrays that `Watch.mark` returned and that anything reads."""
    used = {id(v) for equation in program.eqns for v in equation.invars}
    used |= {id(v) for v in program.outvars}
    names = set()
    for equation in program.eqns:
        name = str(equation.params.get("name", ""))
        if equation.primitive.name == "name" and name.startswith(_MARK):
            names |= {name.removeprefix(_MARK)} if id(equation.outvars[0]) in used else set()
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(part):
                names |= marks_read(getattr(part, "jaxpr", part))
    return names


def _is_program(part: Any) -> bool:
    return isinstance(part, core.Jaxpr | core.ClosedJaxpr)


def _marks(variables: Mapping[Any, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns a variable for every module that has variables, named by its path."""
    marks: dict[str, Any] = {f"mark {path}": None}
    collections = [v for v in variables.values() if isinstance(v, Mapping)]
    for name in dict.fromkeys(name for collection in collections for name in collection):
        inside = {i: v[name] for i, v in enumerate(collections) if name in v}
        if any(isinstance(v, Mapping) for v in inside.values()):
            marks[name] = _marks(inside, (*path, name))
    return marks


def _method(name: str) -> str:
    return "" if name == "__call__" else f".{name}"


def is_array(value: Any) -> bool:
    """Returns whether a value is an array of JAX or NumPy, or the tracer of one."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def escaped(array: Any, images: Any) -> bool:
    """Returns whether an array belongs to another trace than the images, which JAX is tracing.

    Nothing can be done to the tracer of a trace that is over, but JAX says so only much later.
    """
    is_tracer = isinstance(array, jax.core.Tracer)
    return is_tracer and getattr(array, "_trace", None) is not getattr(images, "_trace", None)


def parts(value: Any) -> dict[str, Any]:
    """Returns the leaves of a tuple, dict or dataclass by what their names end with.

    A single array has the ending "", an entry of a tuple or dict ":0" or ":key", and a part of an
    entry ":0:key".
    """
    endings = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        keys = (getattr(k, "name", getattr(k, "key", getattr(k, "idx", k))) for k in path)
        endings["".join(f":{key}" for key in keys)] = leaf
    return endings


def flatten(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], Any]]:
    """Returns (path, value) of every variable of a collection."""
    pairs = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, (*path, key))
        else:
            pairs.append(((*path, key), value))
    return pairs


def flaw(array: Any, images: int) -> str | None:
    """Returns why an array of a network is no tap, None if it is one.

    Args:
      array: the array, or its shape and type.
      images: number of images in the batch.
    """
    if not is_array(array):
        return f"it is a {type(array).__name__}, not an array"
    shape = "x".join(map(str, array.shape)) or "one number"
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return f"it is {array.dtype}, and analyses need real floating-point numbers"
    if array.shape[:1] != (images,):
        return f"it is {shape} for {images} images: its first axis does not run over the images"
    if 0 in array.shape:
        return f"it is {shape}, which holds no number"
    return None
