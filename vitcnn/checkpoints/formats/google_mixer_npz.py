"""MLP-Mixer checkpoints of Google's vision_transformer and big_vision, and ours: NumPy archives.

Our parameter names are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import google_names

FAMILY = "mixer"
ASSUMED = {"gelu": "tanh"}
DOCUMENTED = True
PREPROCESS = google_names.PREPROCESS


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds one of Google's Mixers, or ours."""
    return {"stem/kernel", "pre_head_layer_norm/scale"} <= set(google_names.bare(keys))


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names."""
    return {f"params/{name}": value for name, value in google_names.arrays(raw).items()}
