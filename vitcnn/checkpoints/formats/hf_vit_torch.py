"""ViT, DeiT, DINO and DINOv2 of Hugging Face transformers: "vit.encoder.layer.0.attention...".

Files of `save_pretrained` have these names. Since version 5 a network in memory has others, such as
"vit.layers.0.attention.q_proj", and so has a file of its `state_dict`. The keys do not say how
images were normalised: preprocessor_config.json beside the weights does. The pooler of a `ViTModel`
is the layer `pre_logits`. A gated MLP of DINOv2 is "weights_in", whose first half is the gate, and
"weights_out" in files; in memory, gate and value are layers of their own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names
from vitcnn.checkpoints.files.contents import renamed
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.models import vit

FAMILY = "vit"
SIDECAR = functools.partial(sidecars.read_published, model_type="vit")
FIELDS = {"gelu": "exact"}
PREPROCESS = {"interpolation": "bilinear"}
SIGNATURE = frozenset(
    {
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
    }
)
_QUERY = re.compile(r"(encoder\.layer|layers)\.0\.attention\.(attention\.query|q_proj)\.weight")

_PREFIXES = ("vit.", "deit.", "dinov2_with_registers.", "dinov2.")
_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"(?:encoder\.layer|layers)\.(\d+)\.(.+)",
        {
            "layernorm_before": "LayerNorm_0",
            "norm1": "LayerNorm_0",
            "attention.attention.query": f"{ATTENTION}/query",
            "attention.attention.key": f"{ATTENTION}/key",
            "attention.attention.value": f"{ATTENTION}/value",
            "attention.output.dense": f"{ATTENTION}/out",
            "attention.q_proj": f"{ATTENTION}/query",
            "attention.k_proj": f"{ATTENTION}/key",
            "attention.v_proj": f"{ATTENTION}/value",
            "attention.o_proj": f"{ATTENTION}/out",
            "layer_scale1": "ls1",
            "layernorm_after": "LayerNorm_2",
            "norm2": "LayerNorm_2",
            "intermediate.dense": "MlpBlock_3/Dense_0",
            "mlp.fc1": "MlpBlock_3/Dense_0",
            "output.dense": "MlpBlock_3/Dense_1",
            "mlp.fc2": "MlpBlock_3/Dense_1",
            "mlp.weights_in": "MlpBlock_3/Dense_0",
            "mlp.weights_out": "MlpBlock_3/Dense_1",
            "mlp.gate_proj": "MlpBlock_3/gate",
            "mlp.up_proj": "MlpBlock_3/up",
            "mlp.down_proj": "MlpBlock_3/Dense_1",
            "layer_scale2": "ls2",
        },
        {
            "embeddings.patch_embeddings.projection": "embedding",
            "layernorm": "Transformer/encoder_norm",
            "pooler.dense": "pre_logits",
            "classifier": "head",
            "cls_classifier": "head",
            "distillation_classifier": "head_dist",
        },
    ),
    arrays={
        "embeddings.cls_token": "params/cls",
        "embeddings.distillation_token": "params/dist",
        "embeddings.register_tokens": "params/registers",
        "embeddings.position_embeddings": vit.POSITIONS,
    },
    dropped=(r"embeddings\.mask_token",),
    refused={
        r"decoder\..+": "a masked autoencoder with its decoder",
    },
    weight={**torch_names.WEIGHT, "lambda1": "params/{}/gamma"},
)


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a ViT of transformers."""
    names = {_bare(name) for name in torch_names.bare_names(keys)}
    return {"embeddings.cls_token", "embeddings.position_embeddings"} <= names and any(
        map(_QUERY.fullmatch, names)
    )


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them.

    Raises:
      ValueError: our ViT does not support the network of the file, or only one of the file and
        `module` has gated MLPs.
    """
    bare = renamed((_bare(name), key) for name, key in torch_names.stripped(raw).items())
    bare_arrays = {name: raw[key] for name, key in bare.items()}
    arrays = _joined(torch_names.convert(bare_arrays, _NAMES, getattr(module, "heads", None)))
    torch_names.check_gates(arrays, module)
    return arrays


def _joined(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with each gate and its value joined in one layer, the gate first."""
    joined = dict(arrays)
    for gate in arrays:
        value, both = (gate.replace("/gate/", f"/{part}/") for part in ("up", "Dense_0"))
        # The merge reports a gate or value without the other.
        if gate != value and value in arrays and arrays[gate].shape == arrays[value].shape:
            joined[both] = np.concatenate([joined.pop(gate), joined.pop(value)], axis=-1)
    return joined


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
