"""Weights of our own runs: the names of the network's own variables, whatever its family.

An orbax step has full names, "params/head/kernel" and "batch_stats/bn_root/mean". An archive that
`export` wrote has no "params/" in front. Families whose names are Google's (ViT, BiT, ResNet,
Mixer) also have a file in `formats`, which reads Google's archives and ours alike; every other
family, including one from outside of the package, is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

NAME = "vitcnn"
PREPROCESS = {"interpolation": "bilinear"}  # the mean and deviation are in run.json or the sidecar

_COLLECTIONS = ("params/", "batch_stats/")


def matches(keys: Iterable[str], variables: Iterable[str]) -> bool:
    """Whether a file has mostly the names of a network, so that an error can list the others.

    Args:
      keys: of the file.
      variables: full names of the variables of the network.
    """
    names, variables = {_full(key) for key in keys}, set(variables)
    return 2 * len(names & variables) > min(len(names), len(variables))


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under their full names."""
    return {_full(key): np.asarray(value) for key, value in raw.items()}


def _full(key: str) -> str:
    return key if key.startswith(_COLLECTIONS) else f"params/{key}"
