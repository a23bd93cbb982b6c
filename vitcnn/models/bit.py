"""BiT: pre-activation residual networks (Kolesnikov et al. 2019, arXiv 1912.11370), with taps.

GroupNorm and weight-standardised convolutions; each convolution of a unit comes after a norm and
its ReLU, and nothing after the addition (He et al. 2016, arXiv 1603.05027). Parameters have the
names and shapes of Google's released files, but for the head, which is a dense layer called "head"
as in every family here. As in the networks of these files all padding is of zeros, equal at both
ends, before the max pool too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.layers import common
from vitcnn.layers import images as image_sizes
from vitcnn.layers.common import Images, map_tap
from vitcnn.taps import alias, tap

_GROUPS = 32

KIND = "cnn"


class _Conv(nn.Module):
    """Convolution with weight standardisation: each filter has mean 0 and variance 1 first."""

    features: int
    kernel: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> Images:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        kernel = kernel - kernel.mean(axis=(0, 1, 2))  # Qiao et al. 2019, arXiv 1903.10520
        kernel = kernel * jax.lax.rsqrt((kernel**2).mean(axis=(0, 1, 2)) + 1e-10)
        kernel = kernel.astype(self.dtype)
        padding = [(self.kernel // 2,) * 2] * 2
        return common.convolve(x, kernel, self.stride, padding)


class _GroupNorm(nn.Module):
    """GroupNorm of 32 groups, its parameters named as in the released files, then a ReLU."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> Images:
        gamma = self.param("gamma", nn.initializers.ones, (x.shape[-1],))
        beta = self.param("beta", nn.initializers.zeros, (x.shape[-1],))
        standardise = nn.GroupNorm(
            num_groups=_GROUPS,
            epsilon=1e-5,
            use_scale=False,
            use_bias=False,
            use_fast_variance=False,  # a large mean would cost digits
        )
        return nn.relu(standardise(x) * gamma + beta).astype(self.dtype)


class _Under(nn.Module):
    """A module under one more name, as the released files have it: "proj/standardized_conv2d"."""

    make: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x: Images) -> Images:
        return self.make()(x)


class _Layer(nn.Module):
    """What the files call a, b and c of a unit: a norm and a convolution; a projects besides."""

    features: int
    kernel: int
    stride: int
    projection: Any  # the shortcut's _Under, without its name; None for no projection
    dtype: Any

    def setup(self) -> None:  # attributes are the names in the files
        self.group_norm = _GroupNorm(self.dtype)
        self.standardized_conv2d = _Conv(self.features, self.kernel, self.stride, self.dtype)
        if self.projection is not None:
            self.proj = self.projection()


class _Unit(nn.Module):
    """A residual unit of 1x1, 3x3 and 1x1 convolutions; the 3x3 may halve the grid."""

    features: int
    stride: int
    unit: str  # "stage1/unit01", first part of the names of its taps
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> Images:
        unit, width = self.unit, 4 * self.features
        projection, skip = None, f"{unit}/in"
        if x.shape[-1] != width or self.stride != 1:
            projection = _conv_under(width, 1, self.stride, self.dtype)
            skip = f"{unit}/shortcut_conv"
        layers = (
            _Layer(self.features, 1, 1, projection, self.dtype, name="a"),
            _Layer(self.features, 3, self.stride, None, self.dtype, name="b"),
            _Layer(width, 1, 1, None, self.dtype, name="c"),
        )
        y = first = x
        for i, layer in enumerate(layers, 1):
            y = map_tap(self, f"{unit}/norm{i}", layer.group_norm(y), "norm")
            first = y if i == 1 else first
            y = layer.standardized_conv2d(y)
            y = map_tap(self, f"{unit}/conv{i}", y, "conv", skip=skip if i == len(layers) else None)
        if projection is not None:  # of what the first convolution reads, not of the unit's input
            x = map_tap(self, f"{unit}/shortcut_conv", layers[0].proj(first), "shortcut")
        return map_tap(self, f"{unit}/out", x + y, "residual")


class _Stage(nn.Module):
    """Units of one width; the first may halve the grid."""

    features: int
    units: int
    number: int
    before: str  # the tap that the first unit reads
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> Images:
        before = self.before
        for i in range(1, self.units + 1):
            unit = f"stage{self.number}/unit{i:02d}"
            alias(f"{unit}/in", before)
            stride = 2 if i == 1 and self.number > 1 else 1
            x = _Unit(self.features, stride, unit, self.dtype, name=f"unit{i:02d}")(x)
            before = f"{unit}/out"
        return x


class _ResNet(nn.Module):
    """All up to the final feature map; the files have "resnet/" before every name."""

    units: tuple[int, ...]
    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> Images:
        x = _conv_under(self.widths[0], 7, 2, self.dtype)(name="root_block")(x)
        x = map_tap(self, "stem/conv", x, "conv")
        # No ReLU has been, so the zeros win over negative neighbours, unlike padding of -infinity.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")
        x = map_tap(self, before := "stem/pool", x, "pool")
        for i, (units, width) in enumerate(zip(self.units, self.widths, strict=True), 1):
            x = _Stage(width, units, i, before, self.dtype, name=f"block{i}")(x)
            before = f"stage{i}/unit{units:02d}/out"
        return map_tap(self, "norm", _GroupNorm(self.dtype, name="group_norm")(x), "norm")


def _conv_under(features: int, kernel: int, stride: int, dtype: Any) -> Callable[..., _Under]:
    """Returns a convolution that lacks only the name that it is under."""
    conv = functools.partial(_Conv, features, kernel, stride, dtype, name="standardized_conv2d")
    return functools.partial(_Under, conv)


class Module(nn.Module):
    """BiT, a pre-activation residual network.

    Attributes:
      num_classes: width of the head; 0 for no head, then the output is the pooled features.
      image_size: side of the images in pixels, or (rows, columns).
      units: number of residual units of each stage; from the second on a stage halves the grid.
      widths: channels of the 3x3 convolutions of each stage; a unit puts out four times as many.
      dtype: type of the activations; parameters are float32.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    units: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Float[Array, "batch classes"]:
        """Returns the logits of normalised RGB images; `train` changes nothing in this family.

        Raises:
          ValueError: a field does not fit the others, or the images are of another size.
        """
        if len(self.units) != len(self.widths):
            raise ValueError(f"units {self.units} and widths {self.widths} differ in length")
        if any(width % _GROUPS for width in self.widths):
            raise ValueError(
                f"widths {self.widths} must be multiples of {_GROUPS}, the GroupNorm groups"
            )
        image_sizes.check(images, self.image_size)
        x = jnp.asarray(images, self.dtype)
        x = _ResNet(tuple(self.units), tuple(self.widths), self.dtype, name="resnet")(x)
        x = tap(self, "pooled", x.mean(axis=(1, 2)), role="pooled")
        return common.logits(self, x)


_UNITS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}

VARIANTS = {  # Kolesnikov et al., section 3.2; "x3" is three times as wide
    f"R{depth}x{factor}": {
        "units": _UNITS[depth],
        "widths": tuple(factor * w for w in (64, 128, 256, 512)),
    }
    for depth, factor in (("50", 1), ("50", 3), ("101", 1), ("101", 3), ("152", 2), ("152", 4))
}
