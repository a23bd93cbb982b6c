"""BiT: pre-activation residual networks (Kolesnikov et al. 2019, arXiv 1912.11370), with taps.

GroupNorm and weight-standardised convolutions; each convolution of a unit comes after a norm and
its ReLU, and nothing comes after the addition (He et al. 2016, arXiv 1603.05027). Parameters have
the names and shapes of Google's released files, except for the head, which is a dense layer called
"head" as in every family here. As in the released networks, all padding is with zeros, equal at
both ends, also before the max pool.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.layers import common, image_sizes
from vitcnn.layers.common import Images, NewImages, map_tap
from vitcnn.layers.residual import Skips
from vitcnn.taps import alias, skip_connection, tap

_GROUPS = 32  # of GroupNorm

KIND = "cnn"


class _Conv(nn.Module):
    """Convolution with weight standardisation: each filter has mean 0 and variance 1 first."""

    features: int
    kernel: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        kernel = kernel - kernel.mean(axis=(0, 1, 2))  # Qiao et al. 2019, arXiv 1903.10520
        kernel = kernel * jax.lax.rsqrt((kernel**2).mean(axis=(0, 1, 2)) + 1e-10)
        kernel = kernel.astype(self.dtype)
        padding = [(self.kernel // 2,) * 2] * 2
        return common.convolve(x, kernel, self.stride, padding)


class _GroupNorm(nn.Module):
    """GroupNorm with the parameter names of the released files, then a ReLU."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
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


class _Nested(nn.Module):
    """A module under one more name, as in the released files: "proj/standardized_conv2d"."""

    make: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        return self.make()(x)


class _Layer(nn.Module):
    """A norm and a convolution: one of the layers "a", "b" and "c" of a unit in the files.

    In the files, layer "a" also holds the projection of the shortcut, "proj".
    """

    features: int
    kernel: int
    stride: int
    projection: Callable[..., nn.Module] | None  # makes "proj"; None: the layer has none
    dtype: Any

    def setup(self) -> None:
        # These attributes become the names of the parameters.
        self.group_norm = _GroupNorm(self.dtype)
        self.standardized_conv2d = _Conv(self.features, self.kernel, self.stride, self.dtype)
        if self.projection is not None:
            self.proj = self.projection()


class _Unit(nn.Module):
    """A residual unit of 1x1, 3x3 and 1x1 convolutions; the 3x3 may halve the grid."""

    skips: Skips
    number: int  # of the unit, over all stages, from 0
    features: int
    stride: int
    unit: str  # first part of the names of its taps, such as "stage1/unit01"
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        unit, width = self.unit, 4 * self.features
        has_skip = self.skips.has(self.number)
        projection, skip = None, f"{unit}/in" if has_skip else None
        if has_skip and (x.shape[-1] != width or self.stride != 1):
            projection = _nested_conv(width, 1, self.stride, self.dtype)
            skip = f"{unit}/shortcut_conv"
        layers = (
            _Layer(self.features, 1, 1, projection, self.dtype, name="a"),
            _Layer(self.features, 3, self.stride, None, self.dtype, name="b"),
            _Layer(width, 1, 1, None, self.dtype, name="c"),
        )
        y = activated = x
        for i, layer in enumerate(layers, 1):
            y = map_tap(self, f"{unit}/norm{i}", layer.group_norm(y), "norm")
            activated = y if i == 1 else activated
            y = layer.standardized_conv2d(y)
            last = i == len(layers)
            y = self.skips.drop(self, self.number, y) if last else y
            y = map_tap(self, f"{unit}/conv{i}", y, "conv", skip=skip if last else None)
        if projection is not None:
            # The projection reads what the first convolution reads, not the input of the unit.
            x = map_tap(self, f"{unit}/shortcut_conv", layers[0].proj(activated), "shortcut")
        y = skip_connection(self, f"{unit}/skip", x, skip) + y if has_skip else y
        return map_tap(self, f"{unit}/out", y, "residual")


class _Stage(nn.Module):
    """Units of one width; the first of them may halve the grid."""

    skips: Skips
    features: int
    units: int
    number: int
    first_unit: int  # number of its first unit, over all stages, from 0
    before: str  # name of the tap that the first unit reads
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        previous = self.before
        for i in range(1, self.units + 1):
            unit = f"stage{self.number}/unit{i:02d}"
            alias(f"{unit}/in", previous)
            stride = 2 if i == 1 and self.number > 1 else 1
            number, name = self.first_unit + i - 1, f"unit{i:02d}"
            x = _Unit(self.skips, number, self.features, stride, unit, self.dtype, name=name)(x)
            previous = f"{unit}/out"
        return x


class _Body(nn.Module):
    """Everything up to the final feature map; in the files all its names begin with "resnet/"."""

    skips: Skips
    units: tuple[int, ...]
    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        x = _nested_conv(self.widths[0], 7, 2, self.dtype)(name="root_block")(x)
        x = map_tap(self, "stem/conv", x, "conv")
        # There was no ReLU yet: zeros win over negative neighbours, and -infinity would not.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")
        x = map_tap(self, previous := "stem/pool", x, "pool")
        for i, (units, width) in enumerate(zip(self.units, self.widths, strict=True), 1):
            first, name = sum(self.units[: i - 1]), f"block{i}"
            x = _Stage(self.skips, width, units, i, first, previous, self.dtype, name=name)(x)
            previous = f"stage{i}/unit{units:02d}/out"
        return map_tap(self, "norm", _GroupNorm(self.dtype, name="group_norm")(x), "norm")


def _nested_conv(features: int, kernel: int, stride: int, dtype: Any) -> Callable[..., _Nested]:
    """Returns a function that makes a convolution under the name that it gets."""
    conv = functools.partial(_Conv, features, kernel, stride, dtype, name="standardized_conv2d")
    return functools.partial(_Nested, conv)


class BiT(nn.Module):
    """BiT, a pre-activation residual network.

    Attributes:
      num_classes: width of the head; 0 for no head: the output is the pooled features.
      image_size: side of the images in pixels, or (rows, columns).
      units: number of residual units of each stage; each stage but the first halves the grid.
      widths: channels of the 3x3 convolutions of each stage; the output of a unit has four times as
        many.
      no_skip: units, counted from 0 over all stages, without their skip connection. The skip
        connection of a unit that changes the shape is its shortcut, which is then absent, with its
        parameters and tap.
      stochastic_depth: probability with which training leaves out a branch for an image, so that
        only the skip connection remains; of the last unit, see `stochastic_depth_rule`. The
        branches that stay are divided by the probability of staying.
      stochastic_depth_rule: "linear": the probability rises from 0 in the first unit; "uniform": it
        is the same in all units.
      dtype: type of the activations; parameters are float32.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    units: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    no_skip: tuple[int, ...] = ()
    stochastic_depth: float = 0.0
    stochastic_depth_rule: str = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[ArrayLike, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Returns the logits of normalised RGB images.

        Args:
          images: images of `image_size`.
          train: whether stochastic depth is on; it needs the rng "dropout".

        Raises:
          ValueError: a field does not fit the others, or the images are of another size.
        """
        if len(self.units) != len(self.widths):
            raise ValueError(f"units {self.units} and widths {self.widths} differ in length")
        if any(width % _GROUPS for width in self.widths):
            raise ValueError(
                f"widths {self.widths} must be multiples of {_GROUPS}, the groups of GroupNorm"
            )
        image_sizes.check(images, self.image_size)
        x = jnp.asarray(images, self.dtype)
        skips = Skips(
            sum(self.units),
            tuple(self.no_skip),
            self.stochastic_depth,
            self.stochastic_depth_rule,
            train,
            parts="units",
        )
        x = _Body(skips, tuple(self.units), tuple(self.widths), self.dtype, name="resnet")(x)
        x = tap(self, "pooled", x.mean(axis=(1, 2)), role="pooled")
        return common.classify(self, x)


NETWORK = BiT

_UNITS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}

# Kolesnikov et al., section 3.2; "x3" is three times as wide.
VARIANTS = {
    f"R{depth}x{factor}": {
        "units": _UNITS[depth],
        "widths": tuple(factor * w for w in (64, 128, 256, 512)),
    }
    for depth, factor in (("50", 1), ("50", 3), ("101", 1), ("101", 3), ("152", 2), ("152", 4))
}
