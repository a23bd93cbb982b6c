"""ViTs of timm, DeiT, DINO and DINOv2: "blocks.0.attn.qkv.weight".

All four use the same names, except for the gated MLPs of DINOv2's giants: "mlp.fc1" and "mlp.fc2"
in timm, "mlp.w12" and "mlp.w3" in the original. In both, the first half of the first layer is the
gate, as in our ViT. The keys do not say how images were normalised (timm's AugReg models:
mean and deviation 0.5; the others: ImageNet's): timm's config.json beside the weights does.

open_clip has a network of timm under "visual.trunk." and a projection beside it; what reads texts
is left out. timm itself has CLIP's projection as the head; a network with a projection and no head
takes it from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names, vit_parts
from vitcnn.checkpoints.files.contents import renamed
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.layers import image_sizes
from vitcnn.models import vit

FAMILY = "vit"
SIDECAR = sidecars.read_published
UNSAID = {
    "gelu": 'config.json says it; without it, set gelu="quick" for CLIPs of OpenAI and those that '
    'timm calls quickgelu, gelu="tanh" for SigLIPs with act_layer gelu_tanh in timm, and '
    'gelu="exact" for all others'
}
PREPROCESS = {"interpolation": "bicubic"}
UNSEEN = ("norm_after", "pool")  # a class token may stand beside a mean that is read
SIGNATURE = frozenset({"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"})

# Instead of "pos_embed" where positions are relative.
_RELATIVE = ("blocks.0.attn.rel_pos.mlp.fc1.weight", "shared_rel_pos.mlp.fc1.weight")
_TRUNK = "visual.trunk."
_POOL = "MAPHead_0/MultiHeadDotProductAttention_0"
_transformer = torch_names.transformer(
    r"blocks\.(\d+)\.(.+)",
    {
        "norm1": "LayerNorm_0",
        "attn.qkv": f"{ATTENTION}/qkv",
        "attn.norm": f"{ATTENTION}/inner_norm",
        "attn.proj": f"{ATTENTION}/out",
        "attn.rel_pos.mlp.fc1": f"{ATTENTION}/rel_pos/fc1",
        "attn.rel_pos.mlp.fc2": f"{ATTENTION}/rel_pos/fc2",
        "ls1": "ls1",
        "norm2": "LayerNorm_2",
        "mlp.fc1": "MlpBlock_3/Dense_0",
        "mlp.norm": "MlpBlock_3/inner_norm",
        "mlp.fc2": "MlpBlock_3/Dense_1",
        "mlp.w12": "MlpBlock_3/Dense_0",
        "mlp.w3": "MlpBlock_3/Dense_1",
        "ls2": "ls2",
    },
    {
        "patch_embed.proj": "embedding",
        "norm_pre": "Transformer/pre_norm",
        "shared_rel_pos.mlp.fc1": "Transformer/rel_pos/fc1",
        "shared_rel_pos.mlp.fc2": "Transformer/rel_pos/fc2",
        "norm": "Transformer/encoder_norm",
        "attn_pool.q": f"{_POOL}/query",
        "attn_pool.kv": f"{_POOL}/kv",
        "attn_pool.proj": f"{_POOL}/out",
        "attn_pool.norm": "MAPHead_0/LayerNorm_0",
        "attn_pool.mlp.fc1": "MAPHead_0/MlpBlock_0/Dense_0",
        "attn_pool.mlp.fc2": "MAPHead_0/MlpBlock_0/Dense_1",
        "visual.head.proj": "projection",
        "fc_norm": "fc_norm",
        "pre_logits.fc": "pre_logits",
        "head": "head",
        "head_dist": "head_dist",
    },
)


def _layer(name: str) -> str | None:
    """Returns our name of a layer, in the ResNet of a hybrid or in the ViT."""
    return torch_names.hybrid_resnet(name) or _transformer(name)


_NAMES = torch_names.Names(
    layer=_layer,
    arrays={
        "cls_token": "params/cls",
        "dist_token": "params/dist",
        "reg_token": "params/registers",
        "register_tokens": "params/registers",
        "pos_embed": vit.POSITIONS,
        "attn_pool.latent": "params/MAPHead_0/probe",
    },
    dropped=(
        "mask_token",  # of patches hidden in training
        r"head\.(mlp|last_layer)\..+",  # DINO's training head
    ),
    refused={
        r"attn_pool\.(pos_embed|[qk]_norm\..+)": "a ViT that pools by attention of another kind",
        r"blocks\.\d+\.attn\.[qk]_norm\..+": "a ViT that normalises queries and keys",
        r"blocks\.\d+\.mlp\.fc1_[gx]\..+": "a ViT whose gates are layers of their own (AIMv2's)",
        r"blocks\.\d+\.\d+\..+": "a model in chunks, as FSDP saves it (save it without FSDP)",
        r"patch_embed\.norm\..+": "a ViT that normalises its patches",
        r"patch_embed\.backbone\.(conv1|bn1|layer\d|\d)\..+": "a hybrid with batch norms",
    },
    weight={**torch_names.WEIGHT, "gamma": "params/{}/gamma"},
)


def fields(raw: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the epsilon of the norms, and the kind of GELU where all such ViTs have the same.

    It differs between CLIPs, which have a norm before the blocks, and between SigLIPs, which pool
    patches by attention, or by a mean where they have lost this part.
    """
    names = _trunk(raw)
    is_clip, is_siglip = (name in names for name in ("norm_pre.weight", "attn_pool.latent"))
    is_beit3 = "blocks.0.attn.norm.weight" in names
    others = ("cls_token", "reg_token", "fc_norm.weight", "blocks.0.ls1.gamma", *_RELATIVE)
    varies = is_clip or is_siglip or not any(name in names for name in others)
    is_hybrid = any(name.startswith("patch_embed.backbone.") for name in names)
    return {
        "epsilon": 1e-5 if is_clip or is_beit3 else 1e-6,
        **({} if varies else {"gelu": "exact"}),
        **({"stem_form": "timm"} if is_hybrid else {}),
    }


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ViT of timm, DeiT, DINO or DINOv2."""
    names = _trunk(keys).keys()
    relative = names >= SIGNATURE - {"pos_embed"} and any(name in names for name in _RELATIVE)
    return relative or names >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them.

    Where only patches have positions (timm's `no_embed_class`), the class and distillation tokens
    get positions of zeros, which change nothing. Where registers have positions too, these are
    added to the registers.

    Raises:
      ValueError: our ViT does not support the network of the file, or the file and `module` do not
        have the same parts.
    """
    raw = {name: raw[key] for name, key in _trunk(raw).items()}
    arrays = torch_names.convert(raw, _NAMES, getattr(module, "heads", None))
    torch_names.check_gates(arrays, module)
    arrays = _projection(arrays, module)
    vit_parts.check(arrays, module)
    return _place(arrays, module)


def _trunk(keys: Iterable[str]) -> dict[str, str]:
    """Maps the names of the ViT to the keys of a file; of open_clip's, those of the image tower."""
    bare = torch_names.stripped(keys)
    if not any(name.startswith(_TRUNK) for name in bare):
        return bare
    images = {name: key for name, key in bare.items() if name.startswith("visual.")}
    return renamed((name.removeprefix(_TRUNK), key) for name, key in images.items())


def _projection(arrays: dict[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays with the head as the projection, if this is what the network has.

    Raises:
      ValueError: the head is no projection, because it has biases.
    """
    kernel, bias = (f"params/head/{name}" for name in ("kernel", "bias"))
    wanted = getattr(module, "projection", 0) and not module.num_classes
    if not wanted or kernel not in arrays or "params/projection/kernel" in arrays:
        return arrays
    if np.any(arrays.get(bias, 0)):
        raise ValueError(
            "its head has biases, so that it is a head of classes and no projection: set "
            f"projection=0 and num_classes={arrays[kernel].shape[-1]}"
        )
    arrays = {**arrays, "params/projection/kernel": arrays[kernel]}
    return {name: array for name, array in arrays.items() if name not in (kernel, bias)}


def _place(arrays: dict[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays with a position for every token but the registers.

    Raises:
      ValueError: several numbers of tokens before the patches are possible.
    """
    table = arrays.get(vit.POSITIONS)
    if table is None or table.ndim != 3 or module is None:
        return arrays  # the merge reports it if the network has positions
    tokens = ("params/cls" in arrays) + ("params/dist" in arrays)
    registers = arrays.get("params/registers", np.zeros((1, 0, 0), np.float32)).shape[1]
    before = _tokens_before(table.shape[1], sorted({0, tokens, tokens + registers}), module)
    if before == tokens + registers:
        places = table[:, tokens:before]
        if registers:
            arrays = {**arrays, "params/registers": arrays["params/registers"] + places}
        table = np.concatenate([table[:, :tokens], table[:, before:]], axis=1)
    elif before == 0 and tokens:
        table = np.concatenate([np.zeros((1, tokens, table.shape[2]), np.float32), table], axis=1)
    return {**arrays, vit.POSITIONS: table}


def _tokens_before(count: int, possible: list[int], module: nn.Module) -> int | None:
    """Returns how many tokens with a position come before the patches.

    Args:
      count: number of positions.
      possible: what the tokens of the file make possible.
      module: the network; where its own grid does not fit, the grid of the file is a square.

    Returns:
      One of `possible`; None if none fits, and the merge reports it.
    """
    own = math.prod(image_sizes.grid(module.image_size, module.patch))
    if count - own in possible:
        return count - own
    fitting = [n for n in possible if count > n and math.isqrt(count - n) ** 2 == count - n]
    if len(fitting) > 1:
        raise ValueError(
            f"{count} positions may be those of {' or '.join(map(str, fitting))} tokens and a "
            "square of patches: set image_size to the size that the weights were trained with"
        )
    return fitting[0] if fitting else None
