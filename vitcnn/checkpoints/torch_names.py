"""What the formats of PyTorch libraries have in common: names by rule, axes turned, heads split."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import numpy as np

# Put before every key by the wrappers of training scripts.
_WRAPPERS = ("module.", "teacher.", "backbone.", "model.")
_NORM = re.compile(r"(LayerNorm_\d|encoder_norm|fc_norm|pre_head_layer_norm|bn(_root|_proj|\d))")
WEIGHT = {
    "weight": "params/{}/kernel",
    "bias": "params/{}/bias",
    "running_mean": "batch_stats/{}/mean",
    "running_var": "batch_stats/{}/var",
}
ATTENTION = "MultiHeadDotProductAttention_1"
_MLP = re.compile(r"(params/Transformer/encoderblock_\d+/MlpBlock_3)/Dense_0/kernel")


@dataclasses.dataclass(frozen=True)
class Names:
    """How the keys of a format become our names.

    Attributes:
      layer: from the name of a layer to ours, None if it is unknown.
      arrays: ours by theirs, of arrays that belong to no layer ("cls_token": "cls").
      dropped: patterns of arrays that nothing reads when a network is run.
      refused: patterns of arrays whose networks this family is not, and what they are.
      weight: ours by theirs, of a layer's arrays.
    """

    layer: Callable[[str], str | None]
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = (r".*num_batches_tracked",)
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weight: Mapping[str, str] = dataclasses.field(default_factory=lambda: WEIGHT)

    def of(self, key: str) -> str | None:
        """Returns our name of an array, None if it is dropped, or the key itself if unknown.

        Raises:
          ValueError: the array belongs to a network that this family is not.
        """
        for pattern, what in self.refused.items():
            if re.fullmatch(pattern, key):
                raise ValueError(f"{key!r} is of {what}, which this family has not")
        if any(re.fullmatch(pattern, key) for pattern in self.dropped):
            return None
        if key in self.arrays:
            return f"params/{self.arrays[key]}"
        layer, _, weight = key.rpartition(".")
        ours = self.layer(layer)
        if ours is None or weight not in self.weight:
            return key  # the merge will list it as unexpected
        name, last = self.weight[weight].format(ours), ours.rpartition("/")[2]
        if last == "group_norm":  # of BiT, whose released files say gamma and beta
            return name.replace("/kernel", "/gamma").replace("/bias", "/beta")
        return name.replace("/kernel", "/scale") if _NORM.fullmatch(last) else name


def stripped(keys: Iterable[str]) -> dict[str, str]:
    """Returns the keys by their names without the prefixes that training scripts put before."""
    names = {}
    for key in keys:
        name = key
        while (prefix := next((p for p in _WRAPPERS if name.startswith(p)), None)) is not None:
            name = name.removeprefix(prefix)
        names[name] = key
    return names


def convert(
    raw: Mapping[str, np.ndarray], names: Names, heads: int | None = None
) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and in our axis orders.

    Args:
      raw: the arrays by their keys.
      names: of the format.
      heads: attention heads, which get an axis of their own in projections; a layer whose name ends
        in "/qkv" is split into query, key and value.

    Raises:
      ValueError: an array belongs to a network that this family is not.
    """
    arrays = {}
    for key, original in stripped(raw).items():
        name = names.of(key)
        if name is None:
            continue
        value = np.asarray(raw[original], np.float32)
        if "/qkv/" in name and value.shape[0] % 3 == 0:  # one after the other along the outputs
            for part, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                ours = name.replace("/qkv/", f"/{part}/")
                arrays[ours] = _turned(ours, third, heads)
        else:
            arrays[name] = _turned(name, value, heads)
    return arrays


def _turned(name: str, value: np.ndarray, heads: int | None) -> np.ndarray:
    """Returns an array of torch's axis order in ours, heads on an axis of their own."""
    if value.ndim == 4 and name.endswith("/kernel"):  # [out, in, row, column]
        value = value.transpose(2, 3, 1, 0)
    elif value.ndim == 2 and name.endswith("/kernel"):  # [out, in]
        value = value.T
    if heads is None or f"/{ATTENTION}/" not in name:
        return value
    if re.search(r"/(query|key|value)/", name) and value.shape[-1] % heads == 0:
        return value.reshape(*value.shape[:-1], heads, -1)
    if name.endswith("/out/kernel") and value.shape[0] % heads == 0:
        return value.reshape(heads, -1, value.shape[-1])
    return value


def check_gates(arrays: Mapping[str, np.ndarray], module: nn.Module) -> None:
    """Raises ValueError, saying what to set, if the MLPs of a ViT are gated here or there alone.

    Args:
      arrays: by our names. Where the first layer of an MLP is twice as wide as what the second
        reads, it is gated.
      module: the network.
    """
    for name, kernel in arrays.items():
        if (part := _MLP.fullmatch(name)) is None:
            continue
        after = arrays.get(f"{part[1]}/Dense_1/kernel")
        if after is None or kernel.ndim != 2 or after.ndim != 2:
            continue  # the merge will say what is wrong
        hidden, gated = after.shape[0], getattr(module, "gated", False)
        if kernel.shape[1] == 2 * hidden and not gated:
            raise ValueError(
                f"its MLPs are gated (SwiGLU): set gated=True and mlp_dim={hidden}, or take the "
                "variant 'DINOv2-g/14' or 'DINOv2-g/14-registers' if it is one of DINOv2's giants"
            )
        if kernel.shape[1] == hidden and gated:
            raise ValueError(
                "its MLPs are not gated, and the network's are (SwiGLU): set gated=False and "
                f"mlp_dim={hidden}, or take another variant than DINOv2's giants"
            )


def transformer(
    block: str,
    in_block: Mapping[str, str],
    elsewhere: Mapping[str, str],
    ours: str = "Transformer/encoderblock_{}",
) -> Callable[[str], str | None]:
    """Returns the rule for the layers of a ViT, or of another network of alike blocks.

    Args:
      block: pattern of a layer in a block; its groups are the block's number and the layer's name.
      in_block: ours by theirs, of layers in a block.
      elsewhere: ours by theirs, of the other layers.
      ours: what we call a block, with {} for its number.
    """

    def layer(name: str) -> str | None:
        if part := re.fullmatch(block, name):
            within = in_block.get(part[2])
            return within and f"{ours.format(part[1])}/{within}"
        return elsewhere.get(name)

    return layer


def bit(unit: str, elsewhere: Mapping[str, str]) -> Callable[[str], str | None]:
    """Returns the rule for the layers of a BiT.

    Args:
      unit: pattern of a unit; its groups are the numbers of its stage and of it, both from 0.
      elsewhere: ours by theirs, of the layers in no unit.
    """
    pattern = re.compile(rf"{unit}\.(?:(norm|conv)([123])|downsample\.conv)")

    def layer(name: str) -> str | None:
        if part := pattern.fullmatch(name):
            stage, number, kind, place = part.groups()
            ours = "a/proj" if place is None else "abc"[int(place) - 1]
            ours += "/group_norm" if kind == "norm" else "/standardized_conv2d"
            return f"resnet/block{int(stage) + 1}/unit{int(number) + 1:02d}/{ours}"
        return elsewhere.get(name)

    return layer
