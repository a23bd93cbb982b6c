"""Sidecar: what the JSON next to weights says, in our own words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What the JSON next to weights says.

    Attributes:
      preprocess: fields of `vitcnn.data.preprocess.Preprocess`.
      fields: fields of the network.
      file: name of the file that has the preprocessing; None if there is none.
      family: family of the network; None if the files do not say.
      classes: number of classes of the head; None if the files do not say.
      class_names: names of these classes, by number; () if the files do not say.
      architecture: name of the network in timm; None if the files do not say.
    """

    preprocess: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    file: str | None = None
    family: str | None = None
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    architecture: str | None = None

    def with_preprocess(self, preprocess: Mapping[str, Any], file: str) -> Sidecar:
        """Returns the same with the preprocessing of another file."""
        return dataclasses.replace(self, preprocess=preprocess, file=file)
