"""A CIFAR-10 ViT of PyTorch: "encoder.layers.0.attn.query.weight", norms of `alpha` and `beta`.

Use it with variant "cifar/4".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.models import vit

FAMILY = "vit"
SIDECAR = sidecars.read_published
FIELDS = {"gelu": "exact", "epsilon": 1e-6}
PREPROCESS = {
    "size": (32, 32),
    "resize": 32,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
}
SIGNATURE = frozenset(
    {
        "embedding.cls_token",
        "embedding.pos_embeddings",
        "encoder.layers.0.attn.query.weight",
        "norm.alpha",
    }
)

_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"encoder\.layers\.(\d+)\.(.+)",
        {
            "norm1": "LayerNorm_0",
            "norm2": "LayerNorm_2",
            "attn.query": f"{ATTENTION}/query",
            "attn.key": f"{ATTENTION}/key",
            "attn.value": f"{ATTENTION}/value",
            "attn.out_proj": f"{ATTENTION}/out",
            "ffn.fc1": "MlpBlock_3/Dense_0",
            "ffn.fc2": "MlpBlock_3/Dense_1",
        },
        {
            "embedding.patch_embeddings.conv": "embedding",
            "norm": "Transformer/encoder_norm",
            "mlp_head": "head",
        },
    ),
    arrays={
        "embedding.cls_token": "params/cls",
        "embedding.pos_embeddings": vit.POSITIONS,
    },
    weight={
        "weight": "params/{}/kernel",
        "bias": "params/{}/bias",
        "alpha": "params/{}/scale",
        "beta": "params/{}/bias",
    },
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds this ViT."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them."""
    return torch_names.convert(raw, _NAMES, getattr(module, "heads", None))
