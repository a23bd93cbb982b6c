"""Source: where weights are, with everything that their place says about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitcnn.storage import Path


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights on this machine, once `locate` returns them.

    Attributes:
      path: the file, or the folder of one orbax step; None for random weights.
      address: where the weights were downloaded from, with everything that pins them (commit, file,
        SHA-256); None for weights that were already here.
      sha256: of the file, where downloading has computed it already; None if nobody has.
      network: (family, variant) of the training run that wrote the weights; None if no run did.
      fields: fields of the network, from run.json of that training run.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess`, from the same run.json.
      class_names: names of the classes of its training images, from the same run.json; () if they
        have none.
    """

    path: Path | None = None
    address: str | None = None
    sha256: str | None = None
    network: tuple[str, str] | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocess: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
