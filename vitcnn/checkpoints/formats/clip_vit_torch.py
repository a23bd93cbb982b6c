"""Image towers of CLIP by OpenAI and open_clip: "visual.transformer.resblocks.0.ln_1.weight".

Of a whole CLIP, what reads texts is left out. The keys do not say which GELU the network was
trained with: OpenAI's archive is known to have "quick", and open_clip_config.json says it of its
own. Towers that open_clip takes from timm have timm's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import sidecars, torch_names, vit_parts
from vitcnn.checkpoints.torch_names import ATTENTION
from vitcnn.models import vit

FAMILY = "vit"
SIDECAR = sidecars.read_open_clip
FIELDS = {"epsilon": 1e-5}
UNSAID = {
    "gelu": 'set gelu="quick" for weights of OpenAI, MetaCLIP, DFN and others that open_clip calls '
    'quickgelu, and gelu="exact" for the other weights of open_clip, such as those of LAION'
}
PREPROCESS = {
    "interpolation": "bicubic",
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
SIGNATURE = frozenset(
    {
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.conv1.weight",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
    }
)

_NAMES = torch_names.Names(
    layer=torch_names.transformer(
        r"visual\.transformer\.resblocks\.(\d+)\.(.+)",
        {
            "ln_1": "LayerNorm_0",
            "attn.in_proj": f"{ATTENTION}/qkv",
            "attn.out_proj": f"{ATTENTION}/out",
            "ls_1": "ls1",
            "ln_2": "LayerNorm_2",
            "mlp.c_fc": "MlpBlock_3/Dense_0",
            "mlp.c_proj": "MlpBlock_3/Dense_1",
            "ls_2": "ls2",
        },
        {
            "visual.conv1": "embedding",
            "visual.ln_pre": "Transformer/pre_norm",
            "visual.ln_post": "Transformer/encoder_norm",
        },
    ),
    arrays={
        "visual.class_embedding": "params/cls",
        "visual.positional_embedding": vit.POSITIONS,
        "visual.proj": "params/projection/kernel",
    },
    refused={
        r"visual\.attn_pool\..+": "a CLIP whose images are pooled by attention (CoCa's)",
        r"visual\.transformer\.resblocks\.\d+\.attn\.(logit_scale|head_scale|ln.*)": (
            "a CLIP with scaled attention"
        ),
    },
    weight={**torch_names.WEIGHT, "gamma": "params/{}/gamma"},
)


def fields(raw: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the GELU of OpenAI's archives, which hold these numbers beside their arrays."""
    archive = {"input_resolution", "context_length", "vocab_size"} <= torch_names.bare_names(raw)
    return {"gelu": "quick"} if archive else {}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a CLIP whose images are read by a ViT."""
    return torch_names.bare_names(keys) >= SIGNATURE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names, heads on an axis of their own as `module` has them.

    The projection is left out if `module` has none.

    Raises:
      ValueError: our ViT does not support the network of the file, or the file and `module` do not
        have the same parts.
    """
    bare = torch_names.stripped(raw)
    images = {name: raw[key] for name, key in bare.items() if name.startswith("visual.")}
    images = {name.replace("in_proj_", "in_proj."): value for name, value in images.items()}
    arrays = torch_names.convert(images, _NAMES, getattr(module, "heads", None))
    arrays["params/cls"] = arrays["params/cls"].reshape(1, 1, -1)
    arrays[vit.POSITIONS] = arrays[vit.POSITIONS][None]
    if "params/projection/kernel" in arrays:  # [in, out] in the file, unlike all other layers
        arrays["params/projection/kernel"] = np.float32(images["visual.proj"])
    arrays = vit_parts.without_projection(arrays, module)
    vit_parts.check(arrays, module)
    return arrays
