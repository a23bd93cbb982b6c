"""Taps: the named intermediates of a network.

A module exposes an intermediate with one line, `x = tap(self, "block00/out", x,
role="residual")`. The tap is sown into Flax's `intermediates` collection under its full name, so
parameter trees do not change. Only taps that a caller names are captured: a tap that nobody reads
costs nothing.

`tabulate` lists the taps of a network in execution order, `TapTable.select` chooses by glob, and
`forward` runs the network and returns the chosen taps. `forward` can also edit a tap: something
else takes the place of its value, and the network goes on with that; see `vitcnn.edits`. A network
that exposes nothing is listed by what it sows, or by the outputs of its submodules; `vitcnn.watch`
sees them.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Float

from vitcnn import edits, watch
from vitcnn.edits import Edit
from vitcnn.lookup import check_name, nearest
from vitcnn.numerics.arrays import Array
from vitcnn.watch import COLLECTION, Manner, Watch

LAYOUTS = ("tokens", "map", "vector", "attention")


@dataclasses.dataclass(frozen=True)
class TapInfo:
    """The description of a tap, available without running the network.

    Attributes:
      name: full name, such as "block00/attn" or "stage1/unit02/conv3".
      role: what the array is: embed, norm, attention_weights, heads, attention, token_mixing,
        residual, hidden, mlp, conv, shortcut, pool, gate (of channels), gated (what a gate has
        multiplied), pooled, pre_logits, logits, skip (see `skip_connection`), or "" if the network
        does not declare it.
      shape: shape of the array for one image.
      grid: (rows, columns) of the image positions that the array holds, None if it has none.
      prefix_tokens: number of tokens before the first image position (class token, registers).
      heads: number of attention heads along the head axis, None if there is none.
      skip: name of the tap that this branch is added to, None if this is not a residual branch.
      alias: name of the tap that this one is another name of, None for a tap of its own.
      class_token: whether the first of the prefix tokens is a class token.
      window: (rows, columns) of the windows of positions within which attention runs, None where
        it runs over all tokens.
      layout: how the array of one image is laid out: "tokens" [tokens, ..., channels], prefix
        tokens first, then the positions row by row; "map" [rows, columns, channels]; "attention"
        [heads, queries, keys], with windows [windows, heads, queries, keys]; "vector" for anything
        without positions. With "" the layout follows from the role and the shape.
    """

    name: str
    role: str = ""
    shape: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0
    heads: int | None = None
    skip: str | None = None
    alias: str | None = None
    class_token: bool = False
    window: tuple[int, int] | None = None
    layout: str = ""

    def __post_init__(self):
        if not self.layout:
            object.__setattr__(self, "layout", self._natural_layout())
        check_name(f"layout of tap {self.name!r}:", self.layout, LAYOUTS)

    def _natural_layout(self) -> str:
        if self.role == "attention_weights":
            return "attention"
        if self.grid is None:
            return "vector" if not self.prefix_tokens else "tokens"
        is_map = not self.prefix_tokens and tuple(self.shape[:2]) == tuple(self.grid)
        return "map" if is_map else "tokens"

    @property
    def is_skip(self) -> bool:
        """Whether this is the name of one use of another tap; see `skip_connection`."""
        return self.alias is not None and self.role == "skip"

    def positions(self, x: Float[Array, "n ..."]) -> Float[Array, "n rows columns ..."]:
        """Returns the part of a tap that lies on its grid, without prefix tokens, as a map.

        Args:
          x: the tap, images along the first axis.

        Raises:
          ValueError: the tap holds no vector for each position: it is a vector or attention
            weights itself, or its shape does not fit its grid.
        """
        if self.layout == "map":
            return x
        if self.layout != "tokens" or self.grid is None:
            raise ValueError(
                f"tap {self.name} holds no vector for each image position (it is {self.layout}, "
                f"{' x '.join(map(str, self.shape))}): leave it out of the field taps"
            )
        rows, columns = self.grid
        if x.shape[1] != self.prefix_tokens + rows * columns:
            raise ValueError(
                f"tap {self.name} is [{', '.join(map(str, self.shape))}] for one image, which is "
                f"neither a map of its grid, {self.grid}, nor {self.prefix_tokens} prefix tokens "
                "followed by the positions of the grid; correct its grid, prefix_tokens or layout "
                "where the network calls tap"
            )
        return x[:, self.prefix_tokens :].reshape(len(x), rows, columns, *x.shape[2:])

    def tokens(self, x: Float[Array, "n ..."], which: str) -> Float[Array, "n ..."]:
        """Returns the part of a tap that belongs to some of its tokens.

        Args:
          x: the tap, images along the first axis.
          which: "all"; "class", the class token; or "spatial", all but the prefix tokens (class,
            distillation and register tokens). Of attention weights the queries are selected. A tap
            that has no such part is returned whole: maps, vectors, and for "class" taps without a
            class token.
        """
        divided = {"all": False, "class": self.class_token, "spatial": self.prefix_tokens > 0}
        if not divided[which]:
            return x
        part = slice(0, 1) if which == "class" else slice(self.prefix_tokens, None)
        return x[:, :, part] if self.layout == "attention" else x[:, part]


def tap(
    module: nn.Module,
    name: str,
    value: Float[Array, "batch ..."],
    *,
    role: str = "",
    grid: tuple[int, int] | None = None,
    prefix_tokens: int = 0,
    heads: int | None = None,
    skip: str | None = None,
    class_token: bool = False,
    window: tuple[int, int] | None = None,
    layout: str = "",
) -> Float[Array, "batch ..."]:
    """Exposes an intermediate under its full name and returns it, edited if the caller edits it.

    The network has to go on with what it returns, `x = tap(self, name, x)`; otherwise the tap can
    be read, but not edited.

    It works inside `nn.remat` and `nn.jit`. Inside `nn.scan`, `nn.vmap`, or a transformation of JAX
    that the module calls itself (`jax.jit`, `jax.lax.scan` ...) the array is left out of the taps,
    and a warning says so.

    Args:
      module: the Flax module whose method is running.
      name: full name, unique in the network, numbers zero-padded; module paths are not added to it.
      value: the array, images along the first axis.
      role, grid, prefix_tokens, heads, skip, class_token, window, layout: see `TapInfo`.

    Raises:
      ValueError: the name was used before in this forward pass.
      TypeError: the module is no linen module, or the value no array.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"tap {name!r}: expected the linen module whose method is running, got a "
            f"{type(module).__name__}; a module of flax.nnx exposes an array with "
            "self.sow(nnx.Intermediate, name, value)"
        )
    if not watch.is_array(value):
        raise TypeError(
            f"tap {name!r}: expected an array with the images along its first axis, got a "
            f"{type(value).__name__}; expose its parts one by one"
        )
    run = watch.current()
    if run is not None:
        if run.wanted is not None and name not in run.wanted and name not in run.edits:
            return value
        obstacle = run.obstacle(module.scope)
        if obstacle is not None:
            run.left_out[name] = obstacle
            return value
        if module.has_variable(COLLECTION, name) or getattr(run.infos.get(name), "alias", None):
            raise _declared_twice(name)
        run.infos[name] = TapInfo(
            name,
            role,
            tuple(value.shape[1:]),
            grid,
            prefix_tokens,
            heads,
            skip,
            class_token=class_token,
            window=window,
            layout=layout,
        )
        value = run.write(name, value)
    if not module.is_initializing() and module.is_mutable_collection(COLLECTION):
        if module.scope.name_reserved(name):  # a submodule has the same name, as "pre_logits"
            module.put_variable(COLLECTION, name, value)
        else:
            module.sow(COLLECTION, name, value, lambda _, new: new, lambda: None)
    return value if run is None else run.mark(name, value)


def skip_connection(
    module: nn.Module, name: str, value: Float[Array, "batch ..."], target: str
) -> Float[Array, "batch ..."]:
    """Names one use of a tap, such as the addition that a skip connection leads to.

    Whoever reads it reads the tap: it is a second name, as with `alias`. Whoever edits it changes
    only what this use sees, and all others that read the tap see it as it was.

    Args:
      module: the Flax module whose method is running.
      name: full name of this use, as in `tap`.
      value: the array of the tap.
      target: the tap, declared earlier in this forward pass.

    Returns:
      The array to go on with.
    """
    run = watch.current()
    if run is None:
        return value
    if name in run.edits:
        return tap(module, name, value, role="skip")
    obstacle = run.obstacle(module.scope)
    if run.wanted is None and obstacle is not None:
        run.left_out[name] = obstacle
        return value
    alias(name, target)
    if name in run.infos:
        run.infos[name] = dataclasses.replace(run.infos[name], role="skip")
    return run.mark(name, value)


def alias(name: str, target: str) -> None:
    """Gives a tap a second name.

    Args:
      name: the second name.
      target: the tap, declared earlier in this forward pass.

    Raises:
      ValueError: no tap `target` was declared so far, or the name is taken.
    """
    run = watch.current()
    if run is None or run.wanted is not None:
        return
    if target in run.left_out:
        run.left_out[name] = f"it is another name of {target}, which is left out"
        return
    if target not in run.infos:
        raise ValueError(f"alias {name!r}: no tap {target!r} so far; {nearest(target, run.infos)}")
    if name in run.infos:
        raise _declared_twice(name)
    original = run.infos[target]
    run.infos[name] = dataclasses.replace(
        original, name=name, skip=None, alias=original.alias or target
    )


def _declared_twice(name: str) -> ValueError:
    return ValueError(
        f"tap {name!r} is declared twice in one forward pass; names must be unique (a module that "
        "is used twice can take the name from one of its fields)"
    )


_DECLARED = Manner(outputs=False)

_SOWN = (
    "it is what the network sows, or the output of a module of flax.nnx; expose it with vitcnn.tap "
    "in a linen module to edit it"
)
_IGNORED = (
    "the network does not go on with what vitcnn.tap returns; write x = vitcnn.tap(self, name, x)"
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the taps of a table come from, and how they leave their network.

    Attributes:
      kind: "declared" by `tap`, "sown" by the network itself, or the "outputs" of its submodules.
      manner: how to capture them.
      root: with "outputs", the name of the network's own output.
      first: with "outputs", name of a tap -> name of the first output that is the same array, if
        that is another. An edit is made there, before anything reads the array.
      ignored: with "declared", names of taps whose value the network does not go on with.
    """

    kind: str = "declared"
    manner: Manner = _DECLARED
    root: str = "logits"
    first: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()


class TapTable(Mapping[str, TapInfo]):
    """The taps of a network by name, in execution order; `print` shows it as a table.

    Args:
      infos: the descriptions of the taps, in execution order.
      origin: where the taps come from; None if the network declares them with `tap`.
      left_out: name of an intermediate that is no tap -> why.
    """

    def __init__(
        self,
        infos: Iterable[TapInfo],
        origin: Origin | None = None,
        left_out: Mapping[str, str] | None = None,
    ):
        self._infos = {info.name: info for info in infos}
        self.origin = origin or Origin()
        self.left_out = {n: why for n, why in (left_out or {}).items() if n not in self._infos}

    def __getitem__(self, name: str) -> TapInfo:
        try:
            return self._infos[name]
        except KeyError:
            raise KeyError(self._no_tap(name)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def select(self, patterns: str | Sequence[str]) -> tuple[str, ...]:
        """Returns the names that match any of the globs, in execution order.

        A glob is matched with `fnmatch.fnmatchcase` against the whole name, so "*" crosses "/". No
        array is selected twice: an alias is left out when its tap, or an earlier alias of the same
        tap, is selected. A skip connection is left out when the glob that matches it matches the
        tap that it reads.

        Raises:
          ValueError: a pattern matches nothing; the message gives the nearest names.
        """
        patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        matched = {name for pattern in patterns for name in self._matched(pattern)}
        chosen: dict[str, str] = {}  # name of the array -> name under which it is selected
        for name in sorted(
            matched, key=lambda n: (self._infos[n].alias is not None, self._order(n))
        ):
            chosen.setdefault(self._array(name), name)
        return tuple(sorted(chosen.values(), key=self._order))

    def edits(self, edit: Mapping[str, Any] | None, images: int) -> dict[str, Edit]:
        """Returns what takes the place of each array that is edited, by the name of its tap.

        An alias stands for its tap. A skip connection is left out when the glob that matches it
        matches the tap that it reads.

        Args:
          edit: glob -> array or function, see `vitcnn.edits`.
          images: number of images in the batch.

        Raises:
          ValueError: a glob matches nothing (the message gives the nearest names), two globs match
            one array, a tap cannot be edited, or an array does not broadcast to its tap.
          TypeError: an edit is neither an array of real numbers nor a function.
        """
        if edit is not None and not isinstance(edit, Mapping):
            raise TypeError(f"edit is {edit!r}, expected a dict: name -> array or function")
        edited: dict[str, Edit] = {}
        patterns: dict[str, str] = {}
        for pattern, value in (edit or {}).items():
            for name in dict.fromkeys(map(self._array, self._matched(pattern))):
                if name in edited:
                    raise ValueError(
                        f"edit has two entries for one array: {patterns[name]!r} and {pattern!r} "
                        f"both match {name!r}; leave one of them out"
                    )
                if name in self.read_only:
                    raise ValueError(
                        f"tap {name!r} can be read, but not edited: {self.read_only[name]}"
                    )
                edits.check(name, value, (images, *self[name].shape))
                edited[name], patterns[name] = value, pattern
        return edited

    def _matched(self, pattern: str) -> list[str]:
        names = self.match(pattern)
        if not names:
            raise ValueError(self._no_tap(pattern))
        arrays = {self._array(name) for name in names}
        infos = [self._infos[name] for name in names]
        return [info.name for info in infos if not (info.is_skip and info.alias in arrays)]

    def _array(self, name: str) -> str:
        """Returns the name of the tap that an alias stands for; a skip connection is its own."""
        info = self._infos[name]
        return name if info.is_skip else info.alias or name

    @property
    def read_only(self) -> dict[str, str]:
        """Name of a tap that cannot be edited -> why."""
        if self.origin.kind == "sown":
            return dict.fromkeys(self._infos, _SOWN)
        return dict.fromkeys(self.origin.ignored, _IGNORED)

    def match(self, pattern: str) -> list[str]:
        """Returns every name, aliases too, that one glob matches; possibly none."""
        return [name for name in self._infos if fnmatch.fnmatchcase(name, pattern)]

    def reason(self, pattern: str) -> str | None:
        """Returns why an intermediate that a glob matches is no tap, None if there is none."""
        for name, why in self.left_out.items():
            if fnmatch.fnmatchcase(name, pattern):
                return f"{name!r} is left out: {why}"
        return None

    def _no_tap(self, pattern: str) -> str:
        hint = self.reason(pattern) or nearest(pattern, self._infos)
        return f"no tap matches {pattern!r}: {hint}"

    def _order(self, name: str) -> int:
        return list(self._infos).index(name)

    def __str__(self) -> str:
        header = ("tap", "role", "shape of one image", "grid", "prefix", "heads", "added to")
        rows = [header]
        for info in self._infos.values():
            role = f"= {info.alias}" if info.alias else info.role
            role = f"skip {role}" if info.is_skip else role
            sizes = (" x ".join(map(str, size or ())) for size in (info.shape, info.grid))
            counts = (str(count or "") for count in (info.prefix_tokens, info.heads))
            rows.append((info.name, role, *sizes, *counts, info.skip or ""))
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        left_out = [f"left out: {name}, because {why}" for name, why in self.left_out.items()]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:], *left_out])

    __repr__ = __str__


def tabulate(module: nn.Module, variables: Any, images: Any, **call: Any) -> TapTable:
    """Lists the taps of a network, in execution order, without computing anything.

    If a network declares no taps with `tap`, the table lists the arrays that it sows itself
    (`self.sow("intermediates", ...)`), named by module path and key. If it sows nothing either,
    the table lists the output of every submodule, named by its path, and "logits" for the output of
    the network. Further values of a name are numbered in the order of execution, "encoder/dense",
    "encoder/dense/1"; a method other than `__call__` is named, "encoder.decode"; the parts of a
    tuple or dict have endings, "encoder:0", "encoder:mask". An array has one name: the last module
    that returns it gives the name.

    Arrays that are no taps are in `TapTable.left_out` with the reason: those whose first axis does
    not run over the images, that hold no floating-point numbers, or that are computed where nothing
    comes out, see `vitcnn.watch`. A warning names those that `tap` or the network itself exposes.

    Args:
      module: a Flax module; called as `module.apply(variables, images, **call)`.
      variables: its variables, or their shapes (`jax.ShapeDtypeStruct`).
      images: an image batch or its shape.
      **call: further keyword arguments of the module.
    """

    def trace(**manner: bool) -> TapTable | None:
        tables = []

        def run(variables, images):
            table, output = _table(module, variables, images, call, Manner(**manner))
            tables.append(table)
            return [leaf for leaf in jax.tree.leaves(output) if watch.is_array(leaf)]

        program = jax.make_jaxpr(run)(variables, images)
        (table,) = tables
        if table is not None and table.origin.kind == "declared":
            arrays = {info.name for info in table.values() if info.is_skip or not info.alias}
            ignored = arrays - watch.marks_read(program.jaxpr)
            table.origin = dataclasses.replace(table.origin, ignored=frozenset(ignored))
        return table

    try:
        return trace() or trace(apart=True)
    except TypeError:  # branches of `nn.cond` have to return the same variables
        pass
    return trace(lifted=False, apart=True)


def _table(module, variables, images, call, manner: Manner) -> tuple[TapTable | None, Any]:
    """Returns the table of a network while JAX traces it, and the output of the network.

    The table is None if modules have to be kept apart.
    """
    run = Watch(None, manner)
    output, sown, outputs = run.run(module, variables, images, call)
    if not manner.apart and outputs.keys() - {each.name for each in run.outputs}:
        # `nn.jit` has put arrays of modules that it did not trace into the variables.
        return None, output
    alone = dataclasses.replace(manner, outputs=False)

    arrays = _declared(sown, run.infos)
    arrays = {name: arrays.get(info.alias or name) for name, info in run.infos.items()}
    shapes = {name: info.shape for name, info in run.infos.items()}
    names, left_out = _usable(arrays, shapes, images)
    left_out = {**run.left_out, **left_out}
    table = TapTable([run.infos[name] for name in names], Origin("declared", alone), left_out)
    if not table:
        arrays = _sown(sown, run.returned, leave_out=run.infos)
        names, flaws = _usable(arrays, {}, images)
        left_out |= flaws
        infos = [_info(name, arrays[name], images) for name in names]
        table = TapTable(infos, Origin("sown", alone), left_out)
    if left_out:  # the author of the network wanted these
        listed = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        warnings.warn(f"left out of the taps: {listed}", stacklevel=2)
    table = table or _table_of_outputs(run, output, outputs, images, manner, left_out)
    return table, output


def _table_of_outputs(run: Watch, output, outputs, images, manner, left_out) -> TapTable:
    """Returns the table of a network that exposes nothing: what its submodules return."""
    inside = {each.name: each.array for each in run.outputs}
    clash = "logits" in inside and inside["logits"] is not output
    root = "output" if clash or not watch.is_array(output) else "logits"
    parts = {root + part: array for part, array in watch.parts(output).items()}
    for array in parts.values():
        if not (watch.is_array(array) or isinstance(array, int | float | complex)):
            raise ValueError(
                f"the network returns a {type(array).__name__}, expected an array or a tuple, dict "
                "or flax.struct.dataclass of arrays"
            )
    # One name per array: a wrapper returns the very array that its last part returns.
    by_array = {id(each.array): each.name for each in run.outputs}
    by_array |= {id(array): name for name, array in parts.items()}
    arrays = {name: {**outputs, **parts}.get(name) for name in by_array.values()}
    shapes = {name: a.shape[1:] for name, a in inside.items() if name not in parts}
    names, flaws = _usable(arrays, shapes, images)
    infos = [_info(n, arrays[n], images, "logits" if n == root else "") for n in names]
    left_out = {**left_out, **flaws}
    unseen = {name: watch.IN_SHARED_TRACE for name in outputs if name not in inside}
    for name, why in {**run.outputs_left_out, **unseen}.items():
        left_out[f"{name} (another call)" if name in inside else name] = why
    first: dict[int, str] = {}
    for each in run.outputs:
        first.setdefault(id(each.array), each.name)
    places = {by_array[array]: name for array, name in first.items() if by_array[array] != name}
    return TapTable(infos, Origin("outputs", manner, root, places), left_out)


def _usable(
    arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], images: Any
) -> tuple[list[str], dict[str, str]]:
    """Returns the names of the arrays that are taps, and for the others why they are not.

    Args:
      arrays: name -> array, None if it did not leave the network.
      shapes: name -> its shape for one image, where it is computed.
      images: the batch.
    """
    names, flaws = [], {}
    for name, array in arrays.items():
        # The variable of an array is lost, or has an axis more, where a body runs many times.
        changed = name in shapes and (array is None or array.shape[1:] != tuple(shapes[name]))
        flaw = watch.IN_FLAX if changed else watch.flaw(array, len(images))
        if flaw is None and watch.escaped(array, images):
            flaw = watch.IN_JAX
        if flaw is None:
            names.append(name)
        else:
            flaws[name] = flaw
    return names, flaws


def forward(
    module: nn.Module,
    variables: Any,
    images: Float[Array, "batch ..."],
    table: TapTable,
    names: Sequence[str],
    edit: Mapping[str, Edit] | None = None,
    **call: Any,
) -> tuple[Any, dict[str, Float[Array, "batch ..."]]]:
    """Runs a network and returns its output and the named taps, in the order of `names`.

    Under `jit` a tap that the caller does not read is not computed, and neither is any layer after
    the last tap that is read.

    Args:
      module, variables, images: as for `tabulate`.
      table: the taps of the network.
      names: taps to return. Of a tap that is edited, the edited value is returned.
      edit: glob -> array, or function of the value, that takes the place of the taps that it
        matches; see `vitcnn.edits`.
      **call: further keyword arguments of the module.

    Raises:
      KeyError: the network has no such tap.
      ValueError: the network computes something else than when `table` was made; or an edit does
        not fit.
    """
    edited = table.edits(edit, len(images))
    targets = {name: name if name in edited else table[name].alias or name for name in names}
    origin = table.origin
    places = {
        origin.first.get(name, name): functools.partial(edits.apply, name, value)
        for name, value in edited.items()
    }
    run = Watch(frozenset(targets.values()), origin.manner, places)
    output, sown, arrays = run.run(module, variables, images, call)
    if origin.kind == "outputs" and not run.written >= places.keys():
        output = run.write_parts(output, lambda part: origin.root + part)
    for name in places.keys() - run.written:
        raise _differs(name, "absent in this run")
    if origin.kind == "declared":
        arrays = _declared(sown, targets.values())
    elif origin.kind == "sown":
        arrays = _sown(sown, run.returned)
    else:
        arrays |= {origin.root + part: array for part, array in watch.parts(output).items()}
    for target in targets.values():
        expected = (len(images), *table[target].shape)
        shape = tuple(arrays[target].shape) if target in arrays else None
        if shape != expected:
            what = "absent" if shape is None else list(shape)
            raise _differs(target, f"{what} in this run, expected {list(expected)}")
    return output, {name: arrays[target] for name, target in targets.items()}


def _differs(name: str, what: str) -> ValueError:
    return ValueError(
        f"tap {name!r} is {what}: the network runs differently than when its taps were listed; "
        "make a new Model of it"
    )


def _declared(sown: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Returns the arrays that `tap` put into the intermediates, by name."""
    wanted, arrays = set(names), {}
    for path, array in watch.flatten(sown):
        if path[-1] in wanted and not isinstance(array, tuple):  # Flax sows tuples
            if path[-1] in arrays:
                raise _declared_twice(path[-1])
            arrays[path[-1]] = array
    return arrays


def _sown(
    sown: Mapping[str, Any], returned: Mapping[str, int], leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """Returns what a network sows itself by name, in the order in which its modules return."""
    arrays = {}
    pairs = [pair for pair in watch.flatten(sown) if pair[0][-1] not in leave_out]
    for path, values in sorted(
        pairs, key=lambda pair: returned.get("/".join(pair[0][:-1]), len(returned))
    ):
        for i, value in enumerate(values if isinstance(values, tuple) else (values,)):
            for part, array in watch.parts(value).items():
                name = "/".join(path) + (f"/{i}" if i else "") + part
                if name in arrays:
                    raise ValueError(
                        f"the network sows two arrays called {name!r}: rename one of them"
                    )
                arrays[name] = array
    return arrays


def _info(name: str, array: Any, images: Any, role: str = "") -> TapInfo:
    """Returns the description of an array that no network describes.

    [N, rows, columns, channels] is a map if its sides are in proportion to those of the image, up
    to a row or column; attention weights [N, heads, queries, keys] are not.
    """
    shape, grid = tuple(array.shape[1:]), None
    if len(shape) == 3 and len(images.shape) == 4:
        (rows, columns), (height, width) = shape[:2], images.shape[1:3]
        if abs(rows * width - columns * height) < max(height, width):
            grid = rows, columns
    return TapInfo(name, "logits" if name == "logits" else role, shape, grid)
