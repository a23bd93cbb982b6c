"""Lookup: finds plugins by file name, lists the fields of a thing, names the nearest choice."""

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

REQUIRED = dataclasses.MISSING  # the default of a field without a default


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Returns the end of an error message: the choices most like `name`, else up to 20 choices.

    A choice that is spelled in another way comes first ("b16" is "B/16"), or has the same parts in
    another order ("B-16-SigLIP" is "SigLIP-B/16"), then the end of the name ("ViT-B/16" is "B/16"),
    then the shortest that begin with the name ("dino" is "DINO-S/16"), then those that share most
    letters.
    """
    choices = list(choices)
    plain = _plain(str(name))
    close = [c for c in choices if _plain(c) == plain]
    close = close or [c for c in choices if _parts(c) == _parts(str(name))]
    if not close and len(plain) > 2:
        ends = [c for c in choices if len(_plain(c)) > 1 and plain.endswith(_plain(c))]
        begins = sorted((c for c in choices if _plain(c).startswith(plain)), key=len)
        close = [*sorted(ends, key=lambda c: -len(_plain(c)))[:1], *begins][:count]
    if not close:
        spelled = {_plain(c): c for c in reversed(choices)}
        cutoff = 0.6 if len(plain) > 4 else 0.5  # "b3" has half of the letters of "b2"
        close = difflib.get_close_matches(plain, spelled, n=count, cutoff=cutoff)
        close = [spelled[c] for c in close]
    if close:
        return "did you mean " + ", ".join(repr(c) for c in close) + "?"
    if not choices:
        return "there is none"
    shown = ", ".join(repr(c) for c in choices[:20])
    return f"the choices are {shown}" + (" ..." if len(choices) > 20 else "")


def _plain(name: str) -> str:
    """Returns a name in small letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _parts(name: str) -> list[str]:
    """Returns the words and numbers of a name, sorted."""
    return sorted(re.findall(r"[a-z]+|[0-9]+", name.casefold()))


def check_name(
    kind: str,
    name: str,
    choices: Iterable[str],
    words: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Raises a ValueError with the nearest choices if `name` is not one of `choices`.

    Args:
      kind: what the name names, for the message.
      name: what somebody wrote.
      choices: the names that there are.
      words: what people write elsewhere -> the choice that it means.
    """
    choices = list(choices)
    if name not in choices:
        meant = words.get(_plain(str(name)))
        hint = f"did you mean {meant!r}?" if meant else nearest(name, choices)
        raise ValueError(f"unknown {kind} {name!r}: {hint}")


def names_in(package: ModuleType) -> list[str]:
    """Returns the names of the plugins of a registry folder, which are its file names."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(kind: str, package: ModuleType, name: str) -> ModuleType:
    """Imports a plugin: adding a file to a registry folder is registering it.

    Args:
      kind: what the plugin is, for the error message.
      package: the registry folder.
      name: a file of the folder; for a plugin outside this package, the dotted name of its module,
        such as "my_package.my_family".

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
      meaning: its description in the docstring.
      item: type of the items, if the field is a tuple; else object.
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
      leave_out: names to leave out.
    """
    meanings = _meanings(thing.__doc__ or "")
    if dataclasses.is_dataclass(thing):
        declared = {
            f.name: (f.type, f.default_factory() if _has_factory(f) else f.default)
            for f in dataclasses.fields(thing)
            if f.init
        }
    else:
        declared = {
            p.name: (p.annotation, REQUIRED if p.default is p.empty else p.default)
            for p in inspect.signature(thing).parameters.values()
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
    scope = vars(sys.modules[thing.__module__])
    return {
        name: Field(name, *_types(annotation, default, scope, meanings.get(name, "")))
        for name, (annotation, default) in declared.items()
        if name not in leave_out
    }


def _has_factory(field: dataclasses.Field) -> bool:
    return field.default_factory is not dataclasses.MISSING


def _types(annotation: Any, default: Any, scope: Mapping[str, Any], meaning: str):
    """Returns (type, default, meaning, type of the items), the arguments of a `Field`."""
    try:
        annotation = eval(annotation, dict(scope)) if isinstance(annotation, str) else annotation
    except Exception:  # the annotation names something that only a type checker imports
        annotation = Any
    options = [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        options = [a for a in typing.get_args(annotation) if a is not types.NoneType]
    classes = {typing.get_origin(option) or option for option in options}
    if any("PathLike" in str(option) for option in classes):
        classes = {str}
    if len(classes) > 1 and not classes & {tuple, list, str, dict}:  # numbers, perhaps as arrays
        classes = {type(default) if isinstance(default, bool | int | float) else float}
    field_type = classes.pop() if len(classes) == 1 else object
    if field_type not in (int, float, bool, str, tuple, dict) and isinstance(field_type, type):
        is_mapping = issubclass(field_type, Mapping)
        field_type = dict if is_mapping else tuple if _is_sequence(field_type) else object
    if field_type is object or not isinstance(field_type, type):
        default_type = type(default) if len(options) == 1 else object
        field_type = default_type if default_type in (int, float, bool, str, tuple) else object
    items = [a for a in typing.get_args(options[0]) if a is not Ellipsis]
    item = items[0] if field_type is tuple and items and isinstance(items[0], type) else object
    return field_type, default, meaning, item


def _is_sequence(cls: type) -> bool:
    return issubclass(cls, Collection) and not issubclass(cls, str | bytes | Mapping)


def _meanings(docstring: str) -> dict[str, str]:
    """Returns name -> meaning, from the section Attributes or Args of a Google docstring."""
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
