"""ViT checkpoints of Google's vision_transformer (ViT and AugReg), and ours: NumPy archives.

Our parameter names are theirs. Older files put all under "opt/target/", some under "params/".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

FAMILY = "vit"
# The files are of many sizes: the network says which, and whole images are resized to it.
PREPROCESS = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_PREFIXES = ("opt/target/", "params/")


def _strip(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def matches(keys: Iterable[str]) -> bool:
    """Whether these are the names of a ViT of Google's."""
    return {"embedding/kernel", "Transformer/encoder_norm/scale"} <= {_strip(key) for key in keys}


def convert(raw: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays under our names; what lies beside "opt/target/" is the optimiser's."""
    prefix = "opt/target/"
    ours = {k: v for k, v in raw.items() if k.startswith(prefix)} or raw
    return {f"params/{_strip(key)}": np.asarray(value, np.float32) for key, value in ours.items()}
