"""Finding things by name: plugins by file name, the fields of a thing, the nearest right choice."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

REQUIRED = dataclasses.MISSING  # default of a field that has to be given


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Returns the end of an error message: the choices most like `name`, or all of them if few."""
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=count, cutoff=0.5)
    if close:
        return "did you mean " + ", ".join(repr(c) for c in close) + "?"
    if not choices:
        return "there is none"
    shown = ", ".join(repr(c) for c in choices[:20])
    return f"there is {shown}" + (" ..." if len(choices) > 20 else "")


def check_name(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raises ValueError, naming the nearest choices, if `name` is not one of `choices`."""
    choices = list(choices)
    if name not in choices:
        raise ValueError(f"unknown {kind} {name!r}: {nearest(name, choices)}")


def names_in(package: ModuleType) -> list[str]:
    """Returns the names of the plugins of a registry folder: its files."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(kind: str, package: ModuleType, name: str) -> ModuleType:
    """Imports a plugin: adding a file to a registry folder is registering it.

    Args:
      kind: what the plugin is, for the error message.
      package: the registry folder.
      name: a file of the folder; or, for a plugin outside of this package, a module with its
        dotted path, such as "my_package.my_family".

    Raises:
      ValueError: there is no such file or module; the message lists the nearest names.
    """
    if "." not in str(name):
        check_name(kind, name, names_in(package))
        return importlib.import_module(f"{package.__name__}.{name}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(str(error.name)):  # a module that the plugin itself imports
            raise
        raise ValueError(
            f"unknown {kind} {name!r}: Python finds no module {error.name!r} on its path "
            f"({kind} names without a dot are {', '.join(names_in(package))})"
        ) from error


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting of a thing.

    Attributes:
      name: its name.
      type: int, float, bool, str, tuple or dict; object where several types are allowed.
      default: its default, `REQUIRED` if there is none.
      meaning: what the docstring says of it.
      item: type of the items of a tuple.
    """

    name: str
    type: type
    default: Any = REQUIRED
    meaning: str = ""
    item: type = object


def fields_of(thing: Any, leave_out: Collection[str] = ()) -> dict[str, Field]:
    """Returns the fields of a thing, by name: the one source for configs, flags and checks.

    Args:
      thing: a dataclass (a network, the settings of an analysis) or a function, whose fields are
        its parameters. Meanings are read from the section Attributes or Args of its docstring.
      leave_out: names that are no fields.
    """
    meanings = _meanings(thing.__doc__ or "")
    if dataclasses.is_dataclass(thing):
        found = {
            f.name: (f.type, f.default_factory() if _has_factory(f) else f.default)
            for f in dataclasses.fields(thing)
            if f.init
        }
    else:
        found = {
            p.name: (p.annotation, REQUIRED if p.default is p.empty else p.default)
            for p in inspect.signature(thing).parameters.values()
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
    scope = vars(sys.modules[thing.__module__])
    return {
        name: Field(name, *_types(annotation, default, scope, meanings.get(name, "")))
        for name, (annotation, default) in found.items()
        if name not in leave_out
    }


def _has_factory(field: dataclasses.Field) -> bool:
    return field.default_factory is not dataclasses.MISSING


def _types(annotation: Any, default: Any, scope: Mapping[str, Any], meaning: str):
    """Returns the type, default, meaning and type of items of a `Field`."""
    try:
        annotation = eval(annotation, dict(scope)) if isinstance(annotation, str) else annotation
    except Exception:  # a name that only a type checker knows
        annotation = Any
    options = [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        options = [a for a in typing.get_args(annotation) if a is not types.NoneType]
    plain = {typing.get_origin(option) or option for option in options}
    if any("PathLike" in str(option) for option in plain):
        plain = {str}
    if len(plain) > 1 and not plain & {tuple, list, str, dict}:  # numbers, arrays among them
        plain = {type(default) if isinstance(default, bool | int | float) else float}
    one = plain.pop() if len(plain) == 1 else object
    if one not in (int, float, bool, str, tuple, dict) and isinstance(one, type):
        one = dict if issubclass(one, Mapping) else tuple if _is_sequence(one) else object
    if one is object or not isinstance(one, type):
        known = type(default) if len(options) == 1 else object
        one = known if known in (int, float, bool, str, tuple) else object
    items = [a for a in typing.get_args(options[0]) if a is not Ellipsis]
    item = items[0] if one is tuple and items and isinstance(items[0], type) else object
    return one, default, meaning, item


def _is_sequence(kind: type) -> bool:
    return issubclass(kind, Collection) and not issubclass(kind, str | bytes | Mapping)


def _meanings(docstring: str) -> dict[str, str]:
    """Returns name -> meaning from the section Attributes or Args of a Google docstring."""
    section = re.search(
        r"^( *)(?:Attributes|Args):\n(.*?)(?=\n\1\S|\Z)", inspect.cleandoc(docstring), re.M | re.S
    )
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in section[2].splitlines() if section else ():
        entry = re.match(r"  (\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2].strip())
        else:
            meanings |= {name: f"{meanings[name]} {line.strip()}".strip() for name in names}
    return meanings
