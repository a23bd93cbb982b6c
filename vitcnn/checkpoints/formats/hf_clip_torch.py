"""Image towers of CLIP and SigLIP of Hugging Face transformers: "vision_model.encoder.layers.0...".

Of a whole CLIP or SigLIP, what reads texts is left out. Since version 5 a tower in memory has its
names without "vision_model.".
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names, vit_parts
from vitcnn.checkpoints.files.contents import renamed
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.models import vit

FAMILY = "vit"
SIDECAR = functools.partial(sidecars.read_published, model_type=None)
UNSAID = {
    name: "config.json beside the weights says it; without it, set " + advice
    for name, advice in (
        ("gelu", 'gelu="quick" for OpenAI\'s CLIP, "tanh" for SigLIP, "exact" for LAION\'s CLIP'),
        ("epsilon", "epsilon=1e-5 for CLIP, 1e-6 for SigLIP"),
    )
}
PREPROCESS = {"interpolation": "bicubic"}
SIGNATURE = frozenset(
    {
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
    }
)

_POOL = "MAPHead_0/MultiHeadDotProductAttention_0"
_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"encoder\.layers\.(\d+)\.(.+)",
        {
            "layer_norm1": "LayerNorm_0",
            "self_attn.q_proj": f"{ATTENTION}/query",
            "self_attn.k_proj": f"{ATTENTION}/key",
            "self_attn.v_proj": f"{ATTENTION}/value",
            "self_attn.out_proj": f"{ATTENTION}/out",
            "layer_norm2": "LayerNorm_2",
            "mlp.fc1": "MlpBlock_3/Dense_0",
            "mlp.fc2": "MlpBlock_3/Dense_1",
        },
        {
            "embeddings.patch_embedding": "embedding",
            "pre_layrnorm": "Transformer/pre_norm",  # the name in the files
            "post_layernorm": "Transformer/encoder_norm",
            "head.attention.in_proj": f"{_POOL}/qkv",
            "head.attention.out_proj": f"{_POOL}/out",
            "head.layernorm": "MAPHead_0/LayerNorm_0",
            "head.mlp.fc1": "MAPHead_0/MlpBlock_0/Dense_0",
            "head.mlp.fc2": "MAPHead_0/MlpBlock_0/Dense_1",
            "visual_projection": "projection",
        },
    ),
    arrays={
        "embeddings.class_embedding": "params/cls",
        "embeddings.position_embedding.weight": vit.POSITIONS,
        "head.probe": "params/MAPHead_0/probe",
    },
    dropped=(
        r".*\.position_ids",
        r"(text_model|text_projection)\..+",
        r"logit_(scale|bias)",
    ),
    refused={
        r"classifier\..+": "a classifier that reads the mean of a CLIP's or SigLIP's patches",
    },
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a CLIP or SigLIP whose images are read by a ViT."""
    return _images(keys).keys() >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them.

    The projection is left out if `module` has none.

    Raises:
      ValueError: the file and `module` do not have the same parts.
    """
    # torch has no layer "in_proj", only its arrays.
    images = {n.replace("in_proj_", "in_proj."): raw[key] for n, key in _images(raw).items()}
    arrays = torch_names.convert(images, _NAMES, getattr(module, "heads", None))
    if "params/cls" in arrays:
        arrays["params/cls"] = arrays["params/cls"].reshape(1, 1, -1)
    arrays[vit.POSITIONS] = arrays[vit.POSITIONS][None]
    arrays = vit_parts.without_projection(arrays, module)
    vit_parts.check(arrays, module)
    return arrays


def _images(keys: Iterable[str]) -> dict[str, str]:
    """Maps the names in the image tower, and other names that are not in it, to keys of a file."""
    bare = torch_names.stripped(keys)
    return renamed((name.removeprefix("vision_model."), key) for name, key in bare.items())
