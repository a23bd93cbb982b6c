"""ResNets of Google's vision_transformer (`models_resnet`), and ours: NumPy archives.

Our parameter names are Google's, so `vitcnn.checkpoints.export` writes this format too. In Google's
files parameters may have a prefix, and a scale or bias of GroupNorm the shape (1, 1, 1, C).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import google_names

FAMILY = "resnet"
PREPROCESS = {"interpolation": "bilinear"}  # anyone may have trained them: the sidecar has the rest

_STATISTICS = "batch_stats/"


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ResNet in these names, and not also a ViT."""
    names = google_names.bare(keys)
    is_hybrid = any(name.startswith("Transformer/") for name in names)
    return {"conv_root/kernel", "block1/unit1/conv1/kernel"} <= set(names) and not is_hybrid


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under "params/", running statistics under "batch_stats/"."""
    statistics = {k: np.asarray(v, np.float32) for k, v in raw.items() if k.startswith(_STATISTICS)}
    arrays = google_names.arrays({k: v for k, v in raw.items() if k not in statistics})
    for name, value in arrays.items():
        if name.endswith(("/scale", "/bias")):
            arrays[name] = google_names.flat(value)
    return {**{f"params/{name}": value for name, value in arrays.items()}, **statistics}
