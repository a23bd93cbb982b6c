"""Measures of similarity, one family a file; adding a file is registering its measures.

A file has a tuple `MEASURES` of `vitcnn.similarity.measure.Measure`. Everything about a measure is
in its object: names, options, what it needs, how one group of images is measured (on the device
from Gram matrices, or on the host from exact distances), how groups add up.
"""

from __future__ import annotations

import sys

from vitcnn import lookup
from vitcnn.similarity.measure import Measure


def registered() -> dict[str, Measure]:
    """Returns every measure of this folder by name, files in alphabetical order."""
    package = sys.modules[__name__]
    return {m.name: m for name in lookup.names_in(package) for m in _in_file(name)}


def find(name: str) -> Measure:
    """Returns the measure of this name.

    Args:
      name: such as "procrustes"; "my_package.my_file.my_measure" for the measure "my_measure" in
        `MEASURES` of a file outside this folder.

    Raises:
      ValueError: there is no such measure; the message gives the nearest names.
    """
    file, _, name = name.rpartition(".")
    measures = {m.name: m for m in _in_file(file)} if file else registered()
    lookup.check_name("measure", name, measures)
    return measures[name]


def _in_file(name: str) -> tuple[Measure, ...]:
    return lookup.find("file of measures", sys.modules[__name__], name).MEASURES
