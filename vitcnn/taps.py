"""Taps: the named intermediates of a network.

A module exposes an intermediate with one line, `x = tap(self, "block00/out", x,
role="residual")`. The tap is sown into Flax's `intermediates` collection under its full name, so
parameter trees do not change. Only taps that a caller names are captured: a tap that nobody reads
costs nothing.

`tabulate` lists the taps of a network in execution order, `TapTable.select` chooses by glob, and
`forward` runs the network and returns the chosen taps.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Float

from vitcnn.lookup import check_name, nearest
from vitcnn.numerics.arrays import Array

LAYOUTS = ("tokens", "map", "vector", "attention")
COLLECTION = "intermediates"  # any other collection would leak into `init` and into checkpoints


@dataclasses.dataclass(frozen=True)
class TapInfo:
    """The description of a tap, available without running the network.

    Attributes:
      name: full name, such as "block00/attn" or "stage1/unit02/conv3".
      role: what the array is: embed, norm, attention_weights, heads, attention, token_mixing,
        residual, hidden, mlp, conv, shortcut, pool, pooled, pre_logits, logits, or "" if the
        network does not declare it.
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


@dataclasses.dataclass
class _Trace:
    """The record of one run of a network: its taps in execution order, and which names to sow."""

    wanted: frozenset[str] | None  # None: sow every tap
    infos: dict[str, TapInfo] = dataclasses.field(default_factory=dict)

    def add(self, info: TapInfo) -> None:
        if info.name in self.infos:
            raise ValueError(
                f"tap {info.name!r} is declared twice in one forward pass; names must be unique"
            )
        self.infos[info.name] = info


_trace: contextvars.ContextVar[_Trace | None] = contextvars.ContextVar("vitcnn_taps", default=None)


@contextlib.contextmanager
def _tracing(wanted: Iterable[str] | None) -> Iterator[_Trace]:
    token = _trace.set(_Trace(None if wanted is None else frozenset(wanted)))
    try:
        yield _trace.get()
    finally:
        _trace.reset(token)


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
    """Exposes an intermediate under its full name and returns it unchanged.

    Args:
      module: the Flax module whose method is running.
      name: full name, unique in the network, numbers zero-padded; module paths are not added to it.
      value: the array, images along the first axis.
      role, grid, prefix_tokens, heads, skip, class_token, window, layout: see `TapInfo`.

    Raises:
      ValueError: the name was used before in this forward pass.
    """
    trace = _trace.get()
    if trace is not None:
        shape = tuple(value.shape[1:])
        trace.add(
            TapInfo(
                name,
                role,
                shape,
                grid,
                prefix_tokens,
                heads,
                skip,
                class_token=class_token,
                window=window,
                layout=layout,
            )
        )
        if trace.wanted is not None and name not in trace.wanted:
            return value
    if not module.is_initializing() and module.is_mutable_collection(COLLECTION):
        if module.scope.name_reserved(name):  # a submodule has the same name, as "pre_logits"
            module.put_variable(COLLECTION, name, value)
        else:
            module.sow(COLLECTION, name, value, lambda _, new: new, lambda: None)
    return value


def alias(name: str, target: str) -> None:
    """Gives a tap a second name.

    Args:
      name: the second name.
      target: the tap, declared earlier in this forward pass.

    Raises:
      ValueError: no tap `target` was declared so far, or the name is taken.
    """
    trace = _trace.get()
    if trace is None:
        return
    if target not in trace.infos:
        raise ValueError(
            f"alias {name!r}: no tap {target!r} so far; {nearest(target, trace.infos)}"
        )
    original = trace.infos[target]
    trace.add(dataclasses.replace(original, name=name, skip=None, alias=original.alias or target))


class TapTable(Mapping[str, TapInfo]):
    """The taps of a network by name, in execution order; `print` shows it as a table."""

    def __init__(self, infos: Iterable[TapInfo]):
        self._infos = {info.name: info for info in infos}

    def __getitem__(self, name: str) -> TapInfo:
        try:
            return self._infos[name]
        except KeyError:
            raise KeyError(f"no tap {name!r}: {nearest(name, self._infos)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def select(self, patterns: str | Sequence[str]) -> tuple[str, ...]:
        """Returns the names that match any of the globs, in execution order.

        A glob is matched with `fnmatch.fnmatchcase` against the whole name, so "*" crosses "/". No
        array is selected twice: an alias is left out when its tap, or an earlier alias of the same
        tap, is selected.

        Raises:
          ValueError: a pattern matches nothing; the message gives the nearest names.
        """
        patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        matched = set()
        for pattern in patterns:
            names = self.match(pattern)
            if not names:
                raise ValueError(f"no tap matches {pattern!r}: {nearest(pattern, self._infos)}")
            matched.update(names)
        chosen: dict[str, str] = {}  # name of the array -> name under which it is selected
        for name in sorted(
            matched, key=lambda n: (self._infos[n].alias is not None, self._order(n))
        ):
            chosen.setdefault(self._infos[name].alias or name, name)
        return tuple(sorted(chosen.values(), key=self._order))

    def match(self, pattern: str) -> list[str]:
        """Returns every name, aliases too, that one glob matches; possibly none."""
        return [name for name in self._infos if fnmatch.fnmatchcase(name, pattern)]

    def _order(self, name: str) -> int:
        return list(self._infos).index(name)

    def __str__(self) -> str:
        header = ("tap", "role", "shape of one image", "grid", "prefix", "heads", "added to")
        rows = [header]
        for info in self._infos.values():
            role = f"= {info.alias}" if info.alias else info.role
            sizes = (" x ".join(map(str, size or ())) for size in (info.shape, info.grid))
            counts = (str(count or "") for count in (info.prefix_tokens, info.heads))
            rows.append((info.name, role, *sizes, *counts, info.skip or ""))
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])

    __repr__ = __str__


def tabulate(module: nn.Module, variables: Any, images: Any, **call: Any) -> TapTable:
    """Lists the taps of a network, in execution order, without computing anything.

    If a network declares no taps with `tap`, the table lists the arrays that it sows itself
    (`self.sow("intermediates", ...)`), named by module path and key. If it sows nothing either,
    the table lists the output of every submodule, named by its path.

    Args:
      module: a Flax module; called as `module.apply(variables, images, **call)`.
      variables: its variables, or their shapes (`jax.ShapeDtypeStruct`).
      images: an image batch or its shape.
      **call: further keyword arguments of the module.
    """
    infos: list[TapInfo] = []

    def run(variables, images):
        logits, taps, trace = _run(module, variables, images, None, call)
        infos.extend(
            trace.infos.values() if trace.infos else [_info(n, v) for n, v in taps.items()]
        )
        return logits

    jax.eval_shape(run, variables, images)
    return TapTable(infos)


def forward(
    module: nn.Module,
    variables: Any,
    images: Float[Array, "batch ..."],
    table: TapTable,
    names: Sequence[str],
    **call: Any,
) -> tuple[Any, dict[str, Float[Array, "batch ..."]]]:
    """Runs a network and returns its output and the named taps, in the order of `names`.

    Under `jit` a tap that the caller does not read is not computed, and neither is any layer after
    the last tap that is read.
    """
    targets = {name: table[name].alias or name for name in names}
    output, taps, _ = _run(module, variables, images, targets.values(), call)
    return output, {name: taps[target] for name, target in targets.items()}


def _run(module, variables, images, wanted, call):
    """Applies the module; returns its output, the captured arrays by name, and the trace."""
    finished: dict[str, Any] = {}  # submodule path -> output, in the order in which they return

    def note(call_next, args, kwargs, context):
        out = call_next(*args, **kwargs)
        if context.method_name == "__call__":
            finished["/".join(context.module.path)] = out
        return out

    with _tracing(wanted) as trace, nn.intercept_methods(note):
        output, state = module.apply(variables, images, mutable=[COLLECTION], **call)
    sown = _flatten(state.get(COLLECTION, {}))
    if trace.infos:
        return output, {path[-1]: value for path, value in sown}, trace
    order = list(finished)

    def position(item):  # a plain `sow` is ordered by when its module returned
        path = "/".join(item[0][:-1])
        return order.index(path) if path in order else len(order)

    taps = {}
    for path, values in sorted(sown, key=position):
        for i, value in enumerate(values if isinstance(values, tuple) else (values,)):
            taps["/".join(path) + (f"/{i}" if i else "")] = value
    if not taps:
        named = [*((p, out) for p, out in finished.items() if p), ("logits", output)]
        # A wrapper returns the very array that its last part returns: keep one name per array.
        by_array = {id(out): (p, out) for p, out in named if hasattr(out, "shape")}
        taps = dict(by_array.values())
    return output, taps, trace


def _flatten(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], Any]]:
    pairs = []
    for key, value in tree.items():
        pairs += (
            _flatten(value, (*path, key)) if isinstance(value, Mapping) else [((*path, key), value)]
        )
    return pairs


def _info(name: str, value: Any) -> TapInfo:
    shape, role = tuple(value.shape[1:]), "logits" if name == "logits" else ""
    return TapInfo(name, role, shape, shape[:2] if len(shape) == 3 else None)
