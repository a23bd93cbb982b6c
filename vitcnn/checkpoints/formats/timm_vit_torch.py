"""ViTs of timm, DeiT, DINO and DINOv2: "blocks.0.attn.qkv.weight".

All four use the same names, except for the gated MLPs of DINOv2's giants: "mlp.fc1" and "mlp.fc2"
in timm, "mlp.w12" and "mlp.w3" in the original. In both, the first half of the first layer is the
gate, as in our ViT. The keys do not say how images were normalised (timm's AugReg models:
mean and deviation 0.5; the others: ImageNet's): timm's config.json beside the weights does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.layers import image_sizes
from vitcnn.models import vit

FAMILY = "vit"
SIDECAR = sidecars.read_published
FIELDS = {"gelu": "exact", "epsilon": 1e-6}
PREPROCESS = {"interpolation": "bicubic"}
SIGNATURE = frozenset({"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"})

_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"blocks\.(\d+)\.(.+)",
        {
            "norm1": "LayerNorm_0",
            "attn.qkv": f"{ATTENTION}/qkv",
            "attn.proj": f"{ATTENTION}/out",
            "ls1": "ls1",
            "norm2": "LayerNorm_2",
            "mlp.fc1": "MlpBlock_3/Dense_0",
            "mlp.fc2": "MlpBlock_3/Dense_1",
            "mlp.w12": "MlpBlock_3/Dense_0",
            "mlp.w3": "MlpBlock_3/Dense_1",
            "ls2": "ls2",
        },
        {
            "patch_embed.proj": "embedding",
            "norm": "Transformer/encoder_norm",
            "fc_norm": "fc_norm",
            "pre_logits.fc": "pre_logits",
            "head": "head",
            "head_dist": "head_dist",
        },
    ),
    arrays={
        "cls_token": "params/cls",
        "dist_token": "params/dist",
        "reg_token": "params/registers",
        "register_tokens": "params/registers",
        "pos_embed": vit.POSITIONS,
    },
    dropped=(
        "mask_token",  # of patches hidden in training
        r"head\.(mlp|last_layer)\..+",  # DINO's training head
    ),
    refused={
        r"norm_pre\..+": "a ViT with a norm before its blocks (CLIP's)",
        r"attn_pool\..+": "a ViT that pools by attention",
        r"blocks\.\d+\.attn\.[qk]_norm\..+": "a ViT that normalises queries and keys",
        r"blocks\.\d+\.attn\.norm\..+": "a ViT with a norm inside its attention",
        r"blocks\.\d+\.mlp\.fc1_[gx]\..+": "a ViT whose gates are layers of their own (AIMv2's)",
        r"blocks\.\d+\.\d+\..+": "a model in chunks, as FSDP saves it (save it without FSDP)",
        r"patch_embed\.(backbone|norm)\..+": "a hybrid, or to a ViT that normalises its patches",
    },
    weight={**torch_names.WEIGHT, "gamma": "params/{}/gamma"},
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ViT of timm, DeiT, DINO or DINOv2."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them.

    Where only patches have positions (timm's `no_embed_class`), the class and distillation tokens
    get positions of zeros, which change nothing.

    Raises:
      ValueError: our ViT does not support the network of the file, or only one of the file and
        `module` has gated MLPs.
    """
    arrays = torch_names.convert(raw, _NAMES, getattr(module, "heads", None))
    torch_names.check_gates(arrays, module)
    table = arrays[vit.POSITIONS]
    tokens = ("params/cls" in arrays) + ("params/dist" in arrays)
    count = table.shape[1] if table.ndim == 3 else 0
    # One or two more than a square is never a square.
    if tokens and count != _positions(module) and math.isqrt(count) ** 2 == count:
        table = np.concatenate([np.zeros((1, tokens, table.shape[2]), np.float32), table], axis=1)
    return {**arrays, vit.POSITIONS: table}


def _positions(module: nn.Module | None) -> int:
    """Returns how many tokens of the network have a position; 0 if it is not known."""
    if module is None:
        return 0
    rows, columns = image_sizes.grid(module.image_size, module.patch)
    return rows * columns + (module.pool == "token") + module.distilled
