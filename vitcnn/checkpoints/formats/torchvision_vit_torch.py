"""ViTs of torchvision: "encoder.layers.encoder_layer_0.self_attention.in_proj_weight".

Use them with variants "B/16", "B/32", "L/16", "L/32" and "H/14".
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
    "size": (224, 224),
    "resize": 256,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
SIGNATURE = frozenset(
    {
        "class_token",
        "encoder.pos_embedding",
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
    }
)

_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"encoder\.layers\.encoder_layer_(\d+)\.(.+)",
        {
            "ln_1": "LayerNorm_0",
            "self_attention.in_proj": f"{ATTENTION}/qkv",
            "self_attention.out_proj": f"{ATTENTION}/out",
            "ln_2": "LayerNorm_2",
            "mlp.0": "MlpBlock_3/Dense_0",
            "mlp.3": "MlpBlock_3/Dense_1",
            "mlp.linear_1": "MlpBlock_3/Dense_0",  # before version 0.13
            "mlp.linear_2": "MlpBlock_3/Dense_1",
        },
        {
            "conv_proj": "embedding",
            "encoder.ln": "Transformer/encoder_norm",
            "heads.pre_logits": "pre_logits",
            "heads.head": "head",
        },
    ),
    arrays={
        "class_token": "params/cls",
        "encoder.pos_embedding": vit.POSITIONS,
    },
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ViT of torchvision."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them."""
    # torch has no layer "in_proj", only its arrays.
    raw = {key.replace("in_proj_", "in_proj."): value for key, value in raw.items()}
    return torch_names.convert(raw, _NAMES, getattr(module, "heads", None))
