"""Finding things by name: a module by its file name, the nearest right choice for a wrong one."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


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
    """Returns the names of the modules in a package folder; one that begins with "_" is private."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def find(kind: str, package: ModuleType, name: str) -> ModuleType:
    """Imports module `name` of `package`: adding a file to the folder is registering it.

    Raises:
      ValueError: no such file; the message lists the nearest names in the folder.
    """
    check_name(kind, name, names_in(package))
    return importlib.import_module(f"{package.__name__}.{name}")
