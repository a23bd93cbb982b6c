"""ViT checkpoints of Google's vision_transformer and big_vision, and ours: NumPy archives.

Our parameter names are those of vision_transformer (ViT, AugReg). Files of big_vision number the
parts of a block by their kind, may have all blocks stacked in one array, and have no position
embedding for the class token, or a fixed one that is not in the file. Names may be under
"opt/target/" or "params/"; those of the image tower of a SigLIP are under "params/img/", and what
reads texts is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import google_names, vit_parts
from vitcnn.layers import image_sizes, positions
from vitcnn.models import vit

FAMILY = "vit"
ASSUMED = {"gelu": "tanh", "epsilon": 1e-6}
DOCUMENTED = True
PREPROCESS = google_names.PREPROCESS

_STACKED = "Transformer/encoderblock/"
_POSITIONS = vit.POSITIONS.removeprefix("params/")
_OTHER_POSITIONS = ("pos_embedding", "Transformer/pos_embedding")
_RENUMBERED = {
    "LayerNorm_1": "LayerNorm_2",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "MlpBlock_0": "MlpBlock_3",
}
_STEM_NORM = re.compile(r"(block\d+/unit\d+/)?gn(\d|_root|_proj)/(scale|bias)")
_BLOCK_PART = re.compile(r"(Transformer/encoderblock_\d+)/(\w+)/(.+)")


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds one of Google's ViTs, or ours."""
    names = google_names.bare(keys)
    return "embedding/kernel" in names and any(name.startswith("Transformer/") for name in names)


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays under our names.

    Raises:
      ValueError: the file and `module` do not have the same parts.
    """
    arrays = google_names.arrays(raw)
    for key, value in arrays.items():
        if _STEM_NORM.fullmatch(key):  # (1, 1, 1, C) in some files
            arrays[key] = google_names.flat(value)
    arrays = _unstack(arrays)
    fixed = "Transformer/encoderblock_0/LayerNorm_1/scale" in arrays and "cls" not in arrays
    named = {f"params/{_name(k)}": v for k, v in _place(arrays, module, fixed).items()}
    is_map, is_hybrid = (
        f"params/{key}" in named for key in ("MAPHead_0/probe", "conv_root/kernel")
    )
    if module is not None and (is_map, is_hybrid) != (
        module.pool == "map",
        module.stem == "resnet",
    ):
        vit_parts.check(named, module)
    return named


def _name(key: str) -> str:
    """Returns the name in vision_transformer's numbering of the parts of a block."""
    part = _BLOCK_PART.fullmatch(key)
    return f"{part[1]}/{_RENUMBERED.get(part[2], part[2])}/{part[3]}" if part else key


def _unstack(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with one entry per block where `scan` had stacked all blocks in one."""
    separate = {}
    for key, value in arrays.items():
        if key.startswith(_STACKED):
            for i, block in enumerate(value):
                separate[f"Transformer/encoderblock_{i}/{key.removeprefix(_STACKED)}"] = block
        else:
            separate[key] = value
    return separate


def _place(
    arrays: dict[str, np.ndarray], module: nn.Module | None, fixed: bool
) -> dict[str, np.ndarray]:
    """Returns the arrays with a position embedding for all tokens, under our name.

    Args:
      arrays: by vision_transformer's or big_vision's names.
      module: the network; its grid tells which tokens have a position.
      fixed: whether a file without positions means big_vision's sines and cosines.
    """
    if _POSITIONS in arrays:
        return arrays
    if module is None:  # the grid is not known yet
        names = {name: _POSITIONS for name in _OTHER_POSITIONS if name in arrays}
        return {names.get(key, key): value for key, value in arrays.items()}
    rows, columns = image_sizes.grid(module.image_size, module.patch)
    if names := [key for key in _OTHER_POSITIONS if key in arrays]:
        table = arrays.pop(names[0])
    elif fixed and module.positions == "learned":
        table = positions.sincos2d((rows, columns), arrays["embedding/kernel"].shape[-1])[None]
    else:
        return arrays  # nothing is missing if the network computes them, else the merge reports it
    count = table.shape[1] if table.ndim == 3 else 0
    # Only patches have positions: those of this grid, or a square of another resolution.
    only_patches = count == rows * columns or math.isqrt(count) ** 2 == count != rows * columns + 1
    if "cls" in arrays and count and only_patches:
        table = np.pad(table, ((0, 0), (1, 0), (0, 0)))
    return {**arrays, _POSITIONS: table}
