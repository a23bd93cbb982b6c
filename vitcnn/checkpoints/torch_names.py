"""What all PyTorch formats share: rules for names, transposed axes, attention heads split."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints.files import contents
from vitcnn.checkpoints.files.contents import renamed

# Training scripts and their wrappers put these in front of every key.
_WRAPPERS = ("module.", "backbone.", "model.", "student.", "timm_model.", "_orig_mod.")
# In front of a second network, which is a moving average of the first one.
_AVERAGES = ("teacher.", "ema.", "model_ema.", "ema_model.", "momentum_encoder.")
_NORM = re.compile(
    r"LayerNorm_\d|(encoder|pre|fc|inner)_norm|pre_head_layer_norm"
    r"|(bn|gn|norm)(_root\d?|_pool|_proj|_final|\d)"
)
WEIGHT = {
    "weight": "params/{}/kernel",
    "bias": "params/{}/bias",
    "running_mean": "batch_stats/{}/mean",
    "running_var": "batch_stats/{}/var",
}
ATTENTION = "MultiHeadDotProductAttention_1"
# Projections that files stack along their outputs.
STACKS = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}


@dataclasses.dataclass(frozen=True)
class Names:
    """How the keys of a format become our names.

    Attributes:
      layer: maps the format's name of a layer to ours, or to None if the layer is unknown.
      arrays: the format's key -> our full name, for arrays that belong to no layer
        ("cls_token": "params/cls").
      dropped: patterns of keys whose arrays are not used when a network runs.
      refused: pattern of keys -> the kind of network that has them, and that we do not support.
      weight: the format's name of an array in a layer -> our name, with {} for the layer.
    """

    layer: Callable[[str], str | None]
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = (r".*num_batches_tracked",)
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weight: Mapping[str, str] = dataclasses.field(default_factory=lambda: WEIGHT)

    def translate(self, key: str) -> str | None:
        """Returns our name of an array, None if it is dropped, or the key itself if unknown.

        Raises:
          ValueError: the array belongs to a network that we do not support.
        """
        for pattern, network in self.refused.items():
            if re.fullmatch(pattern, key):
                raise ValueError(f"{key!r} belongs to {network}, which vitcnn does not support")
        if any(re.fullmatch(pattern, key) for pattern in self.dropped):
            return None
        if key in self.arrays:
            return self.arrays[key]
        layer, _, weight = key.rpartition(".")
        ours = self.layer(layer)
        if ours is None or weight not in self.weight:
            return key  # the merge reports it as unexpected
        name, last = self.weight[weight].format(ours), ours.rpartition("/")[2]
        if last == "group_norm":  # the released files of BiT say gamma and beta
            return name.replace("/kernel", "/gamma").replace("/bias", "/beta")
        return name.replace("/kernel", "/scale") if _NORM.fullmatch(last) else name


def stripped(keys: Iterable[str]) -> dict[str, str]:
    """Maps keys without the prefixes of training scripts to the keys as they are.

    Raises:
      ValueError: two keys differ by their prefixes alone.
    """
    return renamed((_bare(key)[0], key) for key in keys)


def bare_names(keys: Iterable[str]) -> set[str]:
    """Returns the keys without the prefixes of training scripts."""
    return {_bare(key)[0] for key in keys}


def _bare(key: str) -> tuple[str, bool]:
    """Returns a key without prefixes, and whether one of them is the prefix of an average."""
    average = False
    while prefix := next((p for p in (*_WRAPPERS, *_AVERAGES) if key.startswith(p)), ""):
        key = key.removeprefix(prefix)
        average |= prefix in _AVERAGES
    return key, average


def one_network(
    arrays: Mapping[str, np.ndarray], average: bool
) -> tuple[dict[str, np.ndarray], str | None]:
    """Returns the arrays of one network where a file holds a network and its moving average.

    Args:
      arrays: by the keys of the file, such as "student.norm.weight" and "teacher.norm.weight".
      average: whether the moving average is meant.

    Returns:
      (arrays, which network they are); all arrays and None where no two keys differ by a prefix
      of an average.
    """
    return contents.one_network(arrays, {key: _bare(key) for key in arrays}, average)


def convert(
    raw: Mapping[str, np.ndarray], names: Names, heads: int | None = None
) -> dict[str, np.ndarray]:
    """Returns the arrays under our names and in our axis orders.

    Args:
      raw: the arrays by their keys.
      names: the rules of the format.
      heads: number of attention heads, which get an axis of their own in projections. A layer whose
        name ends in "/qkv" is split into query, key and value, and one in "/kv" into key and value.

    Raises:
      ValueError: an array belongs to a network that we do not support.
    """
    ours = []
    for bare, key in stripped(raw).items():
        name = names.translate(bare)
        if name is not None:  # an unknown array keeps its key, which the merge reports
            ours.append((key if name == bare else name, key))
    arrays = {}
    for name, key in renamed(ours).items():
        value = np.asarray(raw[key], np.float32)
        stack = next((s for s in STACKS if f"/{s}/" in name), None)
        if stack is not None and value.shape[0] % len(STACKS[stack]) == 0:
            parts = STACKS[stack]
            for part, array in zip(parts, np.split(value, len(parts)), strict=True):
                full = name.replace(f"/{stack}/", f"/{part}/")
                arrays[full] = _transposed(full, array, heads)
        else:
            arrays[name] = _transposed(name, value, heads)
    return arrays


def _transposed(name: str, value: np.ndarray, heads: int | None) -> np.ndarray:
    """Returns an array in our axis order instead of torch's, heads on an axis of their own."""
    if value.ndim == 4 and name.endswith("/kernel"):  # [out, in, row, column]
        value = value.transpose(2, 3, 1, 0)
    elif value.ndim == 2 and name.endswith("/kernel"):  # [out, in]
        value = value.T
    if heads is None or "/MultiHeadDotProductAttention_" not in name:
        return value
    if re.search(r"/(query|key|value)/", name) and value.shape[-1] % heads == 0:
        return value.reshape(*value.shape[:-1], heads, -1)
    if name.endswith("/out/kernel") and value.shape[0] % heads == 0:
        return value.reshape(heads, -1, value.shape[-1])
    return value


def mlps(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, bool]]:
    """Yields (our name, hidden width, whether it is gated) of every MLP of two dense layers.

    Only its shapes tell that an MLP is gated: its first layer is twice as wide as the input of its
    second layer.
    """
    for name, kernel in arrays.items():
        if not name.endswith("/Dense_0/kernel"):
            continue
        mlp = name.removesuffix("/Dense_0/kernel")
        second = arrays.get(f"{mlp}/Dense_1/kernel")
        if second is None or kernel.ndim != 2 or second.ndim != 2:
            continue  # the merge reports what is wrong
        hidden = second.shape[0]
        if kernel.shape[1] in (hidden, 2 * hidden):
            yield mlp, hidden, kernel.shape[1] == 2 * hidden


def check_gates(arrays: Mapping[str, np.ndarray], module: nn.Module | None) -> None:
    """Raises ValueError, saying what to set, if only one of a file and a ViT has gated MLPs.

    Args:
      arrays: by our names.
      module: the network; None if it is not known yet.
    """
    if module is None:
        return
    expected = getattr(module, "gated", False)
    for _, hidden, gated in mlps(arrays):
        if gated and not expected:
            raise ValueError(
                f"its MLPs are gated (SwiGLU): set gated=True and mlp_dim={hidden}, or take the "
                "variant 'DINOv2-g/14' or 'DINOv2-g/14-registers' if it is one of DINOv2's giants"
            )
        if expected and not gated:
            raise ValueError(
                "its MLPs are not gated, and the network's are (SwiGLU): set gated=False and "
                f"mlp_dim={hidden}, or take another variant than DINOv2's giants"
            )


def norm_of(bare: Iterable[str], module: nn.Module | None) -> str:
    """Returns the first part of our names of the norms of a ResNet, "bn" or "norm".

    Args:
      bare: names of the arrays of a file; only batch norms have running statistics.
      module: the network; None if it is not known yet.

    Raises:
      ValueError: the file has group norms, and the network standardises its filters, which no
        library of these names does.
    """
    if any(name.endswith(".running_mean") for name in bare):
        return "bn"
    if module is not None and module.norm == "group":
        raise ValueError(
            "it has GroupNorm without weight-standardised convolutions: set norm='plain_group'"
        )
    return "norm"


def transformer(
    block: str,
    in_block: Mapping[str, str],
    elsewhere: Mapping[str, str],
    ours: str = "Transformer/encoderblock_{}",
) -> Callable[[str], str | None]:
    """Returns the rule for the layers of a ViT, or of another network of identical blocks.

    Args:
      block: pattern of a layer in a block; its groups are the block's number and the layer's name.
      in_block: the format's name -> our name, for the layers in a block.
      elsewhere: the format's name -> our name, for all other layers.
      ours: our name of a block, with {} for its number.
    """

    def layer(name: str) -> str | None:
        if part := re.fullmatch(block, name):
            within = in_block.get(part[2])
            return within and f"{ours.format(part[1])}/{within}"
        return elsewhere.get(name)

    return layer


_HYBRID = re.compile(r"patch_embed\.backbone\.(?:stages\.(\d)\.blocks\.(\d+)\.|stem\.)?([a-z\d.]+)")
_ROOT = {"conv": "conv_root", "norm": "gn_root"}
_UNIT = {
    **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
    **{f"norm{i}": f"gn{i}" for i in (1, 2, 3)},
    "downsample.conv": "conv_proj",
    "downsample.norm": "gn_proj",
}


def hybrid_resnet(name: str) -> str | None:
    """Returns our name of a layer of the ResNet in timm's hybrids; None if it is no such layer."""
    part = _HYBRID.fullmatch(name)
    if part is None:
        return None
    stage, unit, layer = part.groups()
    if stage is None:
        return _ROOT.get(layer)
    ours = _UNIT.get(layer)
    return ours and f"block{int(stage) + 1}/unit{int(unit) + 1}/{ours}"


def bit(unit: str, elsewhere: Mapping[str, str]) -> Callable[[str], str | None]:
    """Returns the rule for the layers of a BiT.

    Args:
      unit: pattern of a unit; its groups are the number of its stage and its own number in that
        stage, both from 0.
      elsewhere: the format's name -> our name, for the layers outside of all units.
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
