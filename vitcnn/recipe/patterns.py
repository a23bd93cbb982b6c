"""Patterns: which parameters a config means, by globs on their paths.

A path is "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel". A pattern is "glob=factor", where
`*` also matches "/". The first pattern that matches a parameter counts.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from vitcnn.lookup import nearest


@dataclasses.dataclass(frozen=True)
class Patterns:
    """Factors of parameters.

    Attributes:
      rules: glob -> factor, in order of precedence.
      otherwise: factor of a parameter that no glob matches.
      where: name of the field, for error messages.
    """

    rules: Mapping[str, float]
    otherwise: float
    where: str

    def factors(self, params: PyTree) -> PyTree:
        """Returns the tree of the factor of each parameter."""
        return jax.tree_util.tree_map_with_path(lambda path, _: self._factor(_text(path)), params)

    def factor_by_path(self, params: PyTree) -> dict[str, float]:
        """Returns {path: factor}."""
        return {path: self._factor(path) for path in _paths(params)}

    def check(self, params: PyTree) -> None:
        """Raises ValueError for a pattern that no parameter follows, with the nearest paths."""
        paths = _paths(params)
        followed = {path: self._match(path) for path in paths}
        for glob in self.rules:
            matches = [path for path in paths if fnmatch.fnmatchcase(path, glob)]
            if not matches:
                raise ValueError(
                    f"{self.where}: {glob!r} matches no parameter; {nearest(glob, paths)}"
                )
            if glob not in followed.values():
                first = followed[matches[0]]
                raise ValueError(
                    f"{self.where}: {glob!r} has no effect, because {first!r} before it matches "
                    "the same parameters and the first match counts"
                )

    def _match(self, path: str) -> str | None:
        return next((glob for glob in self.rules if fnmatch.fnmatchcase(path, glob)), None)

    def _factor(self, path: str) -> float:
        return self.rules.get(self._match(path), self.otherwise)


def parse(
    patterns: Sequence[str], where: str, *, otherwise: float, bare: float | None = None
) -> Patterns:
    """Reads patterns "glob=factor".

    Args:
      patterns: the patterns.
      where: name of the field, for error messages.
      otherwise: factor of a parameter that no glob matches.
      bare: factor of a pattern that is only a "glob"; None if there must be a factor.

    Raises:
      ValueError: a pattern that cannot be read, or a glob that comes twice.
    """
    rules = {}
    for pattern in patterns:
        glob, equals, text = (part.strip() for part in str(pattern).partition("="))
        try:
            factor = float(text) if equals else math.nan if bare is None else bare
        except ValueError:
            factor = math.nan
        if not glob or not 0 <= factor < math.inf:
            form = '"glob=factor"' if bare is None else '"glob" or "glob=factor"'
            raise ValueError(f"{where}: {pattern!r} is not {form} with a factor from 0")
        if glob in rules:
            raise ValueError(f"{where} has the pattern {glob!r} twice")
        rules[glob] = factor
    return Patterns(rules, otherwise, where)


def _paths(params: PyTree) -> list[str]:
    return [_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _text(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
