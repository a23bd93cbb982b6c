"""A CIFAR-10 ViT of PyTorch: "encoder.layers.0.attn.query.weight", norms of `alpha` and `beta`.

Use it with variant "cifar/4".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

FAMILY = "vit"
PREPROCESS = {
    "size": (32, 32),
    "resize": 32,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
}

_BLOCK_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_IN_BLOCK = {
    "norm1": "LayerNorm_0",
    "norm2": "LayerNorm_2",
    "attn.query": "MultiHeadDotProductAttention_1/query",
    "attn.key": "MultiHeadDotProductAttention_1/key",
    "attn.value": "MultiHeadDotProductAttention_1/value",
    "attn.out_proj": "MultiHeadDotProductAttention_1/out",
    "ffn.fc1": "MlpBlock_3/Dense_0",
    "ffn.fc2": "MlpBlock_3/Dense_1",
}
_ELSEWHERE = {
    "embedding.patch_embeddings.conv": "embedding",
    "norm": "Transformer/encoder_norm",
    "mlp_head": "head",
}
_WHOLE = {
    "embedding.cls_token": "cls",
    "embedding.pos_embeddings": "Transformer/posembed_input/pos_embedding",
}
_WEIGHT = {"weight": "kernel", "bias": "bias", "alpha": "scale", "beta": "bias"}


def matches(keys: Iterable[str]) -> bool:
    """Whether these are the names of this ViT."""
    return {*_WHOLE, "encoder.layers.0.attn.query.weight", "norm.alpha"} <= set(keys)


def convert(raw: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them."""
    arrays = {}
    for key, value in raw.items():
        name = _name(key)
        if value.ndim == 4:  # [out, in, row, column]
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim == 2:  # [out, in]
            value = value.T
        if re.search(r"/(query|key|value)/", name) and value.shape[-1] % module.heads == 0:
            value = value.reshape(*value.shape[:-1], module.heads, -1)
        elif name.endswith("/out/kernel") and value.shape[0] % module.heads == 0:
            value = value.reshape(module.heads, -1, value.shape[-1])
        arrays[f"params/{name}"] = np.asarray(value, np.float32)
    return arrays


def _name(key: str) -> str:
    if key in _WHOLE:
        return _WHOLE[key]
    layer, _, weight = key.rpartition(".")
    if part := _BLOCK_LAYER.fullmatch(layer):
        ours = _IN_BLOCK.get(part[2])
        ours = ours and f"Transformer/encoderblock_{part[1]}/{ours}"
    else:
        ours = _ELSEWHERE.get(layer)
    if ours is None or weight not in _WEIGHT:
        return key  # the merge will list it as unexpected
    return f"{ours}/{_WEIGHT[weight]}"
