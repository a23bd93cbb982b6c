"""The parts of a ViT that its arrays show, and what to set where a network has others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn.models import vit

_ATTENTION = "params/Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
_SHARED = "params/Transformer/rel_pos/fc1/bias"
_UNIT = re.compile(r"params/block(\d+)/unit(\d+)/")
_OWN = f"{_ATTENTION}/rel_pos/fc1/bias"


def read(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields of `ViT` that say which parts it has.

    Args:
      shapes: of the arrays of a ViT, by our names.
    """
    layers = {name.rpartition("/")[0] for name in shapes}
    parts: dict[str, Any] = {
        "stem": "resnet" if "params/conv_root" in layers else "none",
        "embed_norm": "params/Transformer/pre_norm" in layers,
        "qkv_bias": f"{_ATTENTION}/query/bias" in shapes,
        "inner_norms": f"{_ATTENTION}/inner_norm" in layers,
        "norm_pooled": "params/fc_norm" in layers,
        "projection": shapes.get("params/projection/kernel", (0,))[-1],
    }
    parts["final_norm"] = parts["norm_pooled"] or "params/Transformer/encoder_norm" in layers
    if parts["stem"] == "resnet":
        units = {m.groups() for layer in layers if (m := _UNIT.match(layer))}
        stages = sorted({stage for stage, _ in units})
        parts["stem_units"] = tuple(sum(stage == s for s, _ in units) for stage in stages)
    if any(layer.startswith("params/MAPHead_0") for layer in layers):
        parts["pool"] = "map"
    elif "params/cls" not in shapes:
        parts["pool"] = "gap"
    for positions, name in (("relative_shared", _SHARED), ("relative", _OWN)):
        if name in shapes:
            parts |= {"positions": positions, "relative_mlp_dim": shapes[name][0]}
    if vit.POSITIONS in shapes:
        parts["positions"] = "learned"
    return parts


def without_projection(
    arrays: Mapping[str, np.ndarray], module: nn.Module | None
) -> dict[str, np.ndarray]:
    """Returns the arrays without CLIP's projection if the network has none."""
    keep = module is None or getattr(module, "projection", 0)
    return {k: v for k, v in arrays.items() if keep or not k.startswith("params/projection/")}


def check(arrays: Mapping[str, np.ndarray], module: nn.Module | None) -> None:
    """Raises ValueError, saying what to set, if a file and a ViT do not have the same parts.

    Args:
      arrays: of the file, by our names.
      module: the network; one of another family, or None, is not checked.
    """
    if not isinstance(module, vit.ViT):
        return
    parts = read({name: array.shape for name, array in arrays.items()})
    if module.positions == "sincos2d" and parts.get("positions") == "learned":
        del parts["positions"]  # the merge reports the table that has no place
    if parts.get("pool") == "gap" and module.pool in ("token", "clsgap"):
        del parts["pool"]  # the merge reports the class token that is missing
    if not parts["projection"] or not module.projection:
        del parts["projection"]  # the merge says how to leave it out or take it
    network = {k: getattr(module, k) for k in parts}
    network |= {k: tuple(v) for k, v in network.items() if isinstance(v, list)}
    different = {k: v for k, v in parts.items() if network[k] != v}
    if different:
        ours = ", ".join(f"{name}={network[name]!r}" for name in different)
        settings = ", ".join(f"{name}={value!r}" for name, value in different.items())
        raise ValueError(f"it is a ViT of other parts than the network, {ours}: set {settings}")
