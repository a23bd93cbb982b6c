"""A residual unit of a ResNet, with taps: convolutions and norms in either order.

Every unit, and every layer inside it, gets the same `Config`. A new option of the network is a new
field of `Config` and a line in the layer that reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.layers import common
from vitcnn.layers.common import Images, NewImages, map_tap
from vitcnn.layers.residual import Skips
from vitcnn.taps import alias, skip_connection, tap

GROUPS = 32  # of GroupNorm


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that the units of one network have in common; see `ResNet` for the fields.

    Its methods are called inside a compact method, and the layers that they return belong to it.
    """

    bottleneck: bool
    expansion: float
    groups: int
    preactivation: bool
    norm_kind: str
    epsilon: float
    attention: str
    se_ratio: float
    downsample: str
    stride_conv: int
    shortcut: str
    shortcut_pool: bool
    conv_bias: bool
    padding: str
    last_norm_scale: float
    skips: Skips
    train: bool
    dtype: Any

    @property
    def norm_prefix(self) -> str:
        """First part of the names of norms in parameter trees.

        It shows what no shape shows: whether the filters are standardised.
        """
        return {"batch": "bn", "group": "gn", "plain_group": "norm"}[self.norm_kind]

    def conv(
        self, features: int, kernel: int, stride: int, *, name: str, groups: int = 1
    ) -> nn.Module:
        """Returns a convolution."""
        return _Conv(self, features, kernel, stride, groups, name=name)

    def norm(self, suffix: str, scale: float = 1.0) -> nn.Module:
        """Returns a norm whose name is `norm_prefix` and `suffix`; its scale starts at `scale`."""
        options = {
            "epsilon": self.epsilon,
            "use_fast_variance": False,  # a large mean would cost digits
            "scale_init": nn.initializers.constant(scale),
            "dtype": self.dtype,
            "name": self.norm_prefix + suffix,
        }
        if self.norm_kind == "batch":
            return nn.BatchNorm(use_running_average=not self.train, momentum=0.9, **options)
        return nn.GroupNorm(num_groups=GROUPS, **options)

    def pad(self, kernel: int) -> str | list[tuple[int, int]]:
        """Returns the padding of a layer as `jax.lax` takes it."""
        # With a stride of 2, "same" puts the odd row at the end; "both" pads both ends equally.
        return "SAME" if self.padding == "same" else [((kernel - 1) // 2,) * 2] * 2

    def halve(self, x: Images) -> NewImages:
        """Returns maps of half the size, where no convolution has halved them.

        Raises:
          ValueError: means of 2 x 2 positions do not cover a map with an odd side.
        """
        if self.downsample == "blur":
            return blur(x)
        if any(side % 2 for side in x.shape[1:3]):
            raise ValueError(
                f"downsample='mean' takes means of 2 x 2 positions, and a map has "
                f"{x.shape[1]} x {x.shape[2]}; set image_size to a multiple of 32"
            )
        return nn.avg_pool(x, (2, 2), strides=(2, 2))


class _Conv(nn.Module):
    """Convolution; with the norm "group" each filter is standardised first.

    A standardised filter has mean 0 and deviation 1 (Qiao et al. 2019, arXiv 1903.10520).
    """

    config: Config
    features: int
    kernel: int
    stride: int
    groups: int

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        config = self.config
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        if config.norm_kind == "group":
            kernel = kernel - kernel.mean(axis=(0, 1, 2))
            kernel = kernel / (kernel.std(axis=(0, 1, 2)) + 1e-5)
        kernel = kernel.astype(config.dtype)
        x = common.convolve(x, kernel, self.stride, config.pad(self.kernel), self.groups)
        if config.conv_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(config.dtype)
        return x


def blur(x: Images) -> NewImages:
    """Blurs maps and keeps every second position (Zhang 2019, arXiv 1904.11486).

    The filter is (1, 2, 1) / 4 along rows and along columns; the maps are mirrored at their edges.
    """
    for axis in (1, 2):
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        padded = jnp.pad(x, pads, mode="reflect")
        end = x.shape[axis] + (x.shape[axis] % 2)  # the last position that is kept, plus 2
        before, at, after = (
            jax.lax.slice_in_dim(padded, i, i + end - 1, stride=2, axis=axis) for i in range(3)
        )
        x = (before + 2 * at + after) / 4
    return x


def mean_pool(x: Images) -> NewImages:
    """Returns means of 2 x 2 positions; at an odd end, of the positions that are there."""
    ends = tuple((0, side % 2) for side in x.shape[1:3])
    return nn.avg_pool(x, (2, 2), strides=(2, 2), padding=ends, count_include_pad=False)


def se_width(channels: int, ratio: float) -> int:
    """Returns the width of the hidden layer of "se", a multiple of 8 as in released weights."""
    return max(8, int(channels * ratio + 4) // 8 * 8)


class _ChannelAttention(nn.Module):
    """Multiplies each channel of a map by a gate from 0 to 1, a function of all channel means.

    "se": two dense layers with a ReLU between them (Hu et al. 2017, arXiv 1709.01507). "eca": a
    convolution along the channels (Wang et al. 2019, arXiv 1910.03151).
    """

    config: Config
    unit: str  # first part of the names of its taps, such as "stage1/unit01"

    @nn.compact
    def __call__(self, x: Images) -> Images:
        means = x.mean(axis=(1, 2))
        scores = self._excite(means) if self.config.attention == "se" else self._convolve(means)
        gate = nn.sigmoid(scores.astype(jnp.float32)).astype(x.dtype)
        gate = tap(self, f"{self.unit}/gate", gate, role="gate")
        return x * gate[:, None, None]

    def _excite(self, x: Float[Array, "batch channel"]) -> Float[Array, "batch channel"]:
        config, channels = self.config, x.shape[-1]
        width = se_width(channels, config.se_ratio)
        x = nn.relu(nn.Dense(width, dtype=config.dtype, name="reduce")(x))
        return nn.Dense(channels, dtype=config.dtype, name="expand")(x)

    def _convolve(self, x: Float[Array, "batch channel"]) -> Float[Array, "batch channel"]:
        channels = x.shape[-1]
        size = int((math.log2(channels) + 1) / 2)  # eq. 12 of the paper
        size = max(3, size + 1 - size % 2)
        kernel = self.param("kernel", nn.initializers.normal(size**-0.5), (size,))
        padded = jnp.pad(x, ((0, 0), (size // 2, size // 2)))
        shifted = jnp.stack([padded[:, i : i + channels] for i in range(size)])
        return jnp.tensordot(kernel.astype(self.config.dtype), shifted, 1)


class _Unit(nn.Module):
    """A residual unit: `relu(shortcut(x) + branch(x))`.

    With `preactivation`, norms and ReLUs come before the convolutions, nothing comes after the
    addition, and the projection of the shortcut reads what the first convolution reads (He et al.
    2016, arXiv 1603.05027).
    """

    config: Config
    number: int  # of the unit, over all stages, from 0
    features: int  # of its 3x3 convolutions
    stride: int
    unit: str  # first part of the names of its taps, such as "stage1/unit01"

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        config, unit = self.config, self.unit
        has_skip = config.skips.has(self.number)
        width = int(self.features * config.expansion) if config.bottleneck else self.features
        skip = f"{unit}/in" if has_skip else None
        reshapes = has_skip and (x.shape[-1] != width or self.stride != 1)
        if reshapes and config.shortcut == "pad":
            skip = f"{unit}/shortcut_pad"
        elif reshapes:
            skip = f"{unit}/shortcut_{'conv' if config.preactivation else 'norm'}"
        layers = self._layers(width)
        y = activated = x
        for i, (name, role, layer) in enumerate(layers, 1):
            last = i == len(layers)
            y = layer(y)
            y = config.skips.drop(self, self.number, y) if last else y
            y = map_tap(self, f"{unit}/{name}", y, role, skip=skip if last else None)
            activated = y if i == 1 else activated
        if reshapes and config.shortcut == "project":
            x = self._project(activated if config.preactivation else x, width)
        elif reshapes:
            pad = width - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (pad // 2, pad - pad // 2)))
            x = map_tap(self, f"{unit}/shortcut_pad", x, "shortcut")
        y = skip_connection(self, f"{unit}/skip", x, skip) + y if has_skip else y
        y = y if config.preactivation else nn.relu(y)
        return map_tap(self, f"{unit}/out", y, "residual")

    def _layers(self, width: int) -> list[tuple[str, str, Any]]:
        """Returns (name of the tap, its role, function) of each layer of the branch, in order."""
        config, pre = self.config, self.config.preactivation
        kernels = (1, 3, 1) if config.bottleneck else (3, 3)
        strided = config.stride_conv if config.bottleneck else 1  # the convolution with the stride
        halves = self.stride != 1 and config.downsample != "stride"
        layers = []
        for i, kernel in enumerate(kernels, 1):
            last = i == len(kernels)
            stride = self.stride if i == strided and not halves else 1
            groups = config.groups if config.bottleneck and kernel == 3 else 1
            features = width if last else self.features
            conv = config.conv(features, kernel, stride, groups=groups, name=f"conv{i}")
            # In front of a convolution, a norm of zeros would never learn.
            norm = config.norm(str(i), config.last_norm_scale if last and not pre else 1.0)
            pair = [(f"conv{i}", "conv", conv)]
            if pre:
                pair.insert(0, (f"norm{i}", "norm", functools.partial(_then_relu, norm)))
            else:
                function = norm if last else functools.partial(_then_relu, norm)
                pair.append((f"norm{i}", "norm", function))
            layers += pair
            if halves and i == strided:
                layers.append(("pool", "pool", config.halve))
        if config.attention != "none":
            attention = _ChannelAttention(config, self.unit, name=config.attention)
            layers.append(("gated", "gated", attention))
        return layers

    def _project(self, x: Images, width: int) -> NewImages:
        """Returns the shortcut where the shape changes: a 1x1 convolution, and a norm after it."""
        config, unit, stride = self.config, self.unit, self.stride
        if config.shortcut_pool and stride != 1:
            x, stride = map_tap(self, f"{unit}/shortcut_pool", mean_pool(x), "pool"), 1
        x = config.conv(width, 1, stride, name="conv_proj")(x)
        if config.preactivation:
            return map_tap(self, f"{unit}/shortcut_conv", x, "shortcut")
        x = map_tap(self, f"{unit}/shortcut_conv", x, "conv")
        return map_tap(self, f"{unit}/shortcut_norm", config.norm("_proj")(x), "shortcut")


def _then_relu(layer: nn.Module, x: Images) -> Images:
    return nn.relu(layer(x))


class Stage(nn.Module):
    """Units of one width; the first of them may halve the grid."""

    config: Config
    features: int
    units: int
    number: int
    first_unit: int  # number of its first unit, over all stages, from 0
    before: str  # name of the tap that the first unit reads

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        """Returns the residual stream after the last unit."""
        previous = self.before
        for i in range(1, self.units + 1):
            unit = f"stage{self.number}/unit{i:02d}"
            alias(f"{unit}/in", previous)
            stride = 2 if i == 1 and self.number > 1 else 1
            number = self.first_unit + i - 1
            x = _Unit(self.config, number, self.features, stride, unit, name=f"unit{i}")(x)
            previous = f"{unit}/out"
        return x
