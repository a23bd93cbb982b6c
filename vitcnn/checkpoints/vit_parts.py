"""The parts of a ViT that its arrays show, and what to set where a network has others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn.models import vit

_ATTENTION = "params/Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
_SHARED = "params/Transformer/rel_pos/fc1/bias"
_OWN = f"{_ATTENTION}/rel_pos/fc1/bias"


def read(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the fields of `ViT` that say which parts it has.

    Args:
      arrays: of a ViT, by our names.
    """
    layers = {name.rpartition("/")[0] for name in arrays}
    parts: dict[str, Any] = {
        "embed_norm": "params/Transformer/pre_norm" in layers,
        "qkv_bias": f"{_ATTENTION}/query/bias" in arrays,
        "norm_pooled": "params/fc_norm" in layers,
        "projection": arrays.get("params/projection/kernel", np.zeros((0, 0))).shape[-1],
    }
    parts["final_norm"] = parts["norm_pooled"] or "params/Transformer/encoder_norm" in layers
    if any(layer.startswith("params/MAPHead_0") for layer in layers):
        parts["pool"] = "map"
    elif "params/cls" not in arrays:
        parts["pool"] = "gap"
    for positions, name in (("relative_shared", _SHARED), ("relative", _OWN)):
        if name in arrays:
            parts |= {"positions": positions, "relative_mlp_dim": len(arrays[name])}
    if vit.POSITIONS in arrays:
        parts["positions"] = "learned"
    return parts


def without_projection(
    arrays: Mapping[str, np.ndarray], module: nn.Module
) -> dict[str, np.ndarray]:
    """Returns the arrays without CLIP's projection if the network has none."""
    keep = getattr(module, "projection", 0)
    return {k: v for k, v in arrays.items() if keep or not k.startswith("params/projection/")}


def check(arrays: Mapping[str, np.ndarray], module: nn.Module) -> None:
    """Raises ValueError, saying what to set, if a file and a ViT do not have the same parts.

    Args:
      arrays: of the file, by our names.
      module: the network; one of another family is not checked.
    """
    if not isinstance(module, vit.ViT):
        return
    parts = read(arrays)
    if module.positions == "sincos2d" and parts.get("positions") == "learned":
        del parts["positions"]  # the merge reports the table that has no place
    if parts.get("pool") == "gap" and module.pool in ("token", "clsgap"):
        del parts["pool"]  # the merge reports the class token that is missing
    if not parts["projection"] or not module.projection:
        del parts["projection"]  # the merge says how to leave it out or take it
    different = {k: v for k, v in parts.items() if getattr(module, k) != v}
    if different:
        network = ", ".join(f"{name}={getattr(module, name)!r}" for name in different)
        settings = ", ".join(f"{name}={value!r}" for name, value in different.items())
        raise ValueError(f"it is a ViT of other parts than the network, {network}: set {settings}")
