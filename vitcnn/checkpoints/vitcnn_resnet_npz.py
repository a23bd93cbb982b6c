"""ResNets that `vitcnn.checkpoints.export` wrote: NumPy archives in our own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

FAMILY = "resnet"
# The files are of many sizes: the network says which, and whole images are resized to it.
PREPROCESS = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def matches(keys: Iterable[str]) -> bool:
    """Whether these are the names of one of our ResNets."""
    return {"conv_root/kernel", "block1/unit1/conv1/kernel"} <= set(keys)


def convert(raw: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays under "params/", running statistics under "batch_stats/"."""
    return {
        key if key.startswith("batch_stats/") else f"params/{key}": np.asarray(value, np.float32)
        for key, value in raw.items()
    }
