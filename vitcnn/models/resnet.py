"""Post-activation residual networks (He et al. 2015, arXiv 1512.03385), with taps.

Four forms of them: the paper's (GroupNorm and weight-standardised convolutions, parameter names of
Google's vision_transformer `models_resnet`), BatchNorm as in torchvision (version 1.5) and in Keras
(version 1), and the CIFAR nets of two-convolution units with parameter-free shortcuts.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.layers import common, image_sizes
from vitcnn.layers.common import Images, NewImages, map_tap
from vitcnn.layers.residual import Skips
from vitcnn.lookup import check_name
from vitcnn.taps import alias, skip_connection, tap

KIND = "cnn"

_GROUPS = 32  # of GroupNorm


@dataclasses.dataclass(frozen=True)
class _Config:
    """Everything that the units of one network have in common; see `ResNet` for the fields.

    Its methods are called inside a compact method, and the layers that they return belong to it.
    """

    bottleneck: bool
    norm_kind: str
    epsilon: float
    stride_conv: int
    shortcut: str
    conv_bias: bool
    padding: str
    last_norm_scale: float
    skips: Skips
    train: bool
    dtype: Any

    @property
    def norm_prefix(self) -> str:
        """First part of the names of norms in parameter trees."""
        return "gn" if self.norm_kind == "group" else "bn"

    def conv(self, features: int, kernel: int, stride: int, *, name: str) -> _Conv:
        """Returns a convolution."""
        return _Conv(self, features, kernel, stride, name=name)

    def norm(self, suffix: str, scale: float = 1.0) -> nn.Module:
        """Returns a norm whose name is `norm_prefix` and `suffix`; its scale starts at `scale`."""
        options = {
            "epsilon": self.epsilon,
            "use_fast_variance": False,  # a large mean would cost digits
            "scale_init": nn.initializers.constant(scale),
            "dtype": self.dtype,
            "name": self.norm_prefix + suffix,
        }
        if self.norm_kind == "group":
            return nn.GroupNorm(num_groups=_GROUPS, **options)
        return nn.BatchNorm(use_running_average=not self.train, momentum=0.9, **options)

    def pad(self, kernel: int) -> str | list[tuple[int, int]]:
        """Returns the padding of a layer as `jax.lax` takes it."""
        # With a stride of 2, "same" puts the odd row at the end; "both" pads both ends equally.
        return "SAME" if self.padding == "same" else [((kernel - 1) // 2,) * 2] * 2


class _Conv(nn.Module):
    """Convolution; in networks with GroupNorm each filter is standardised first.

    A standardised filter has mean 0 and deviation 1 (Qiao et al. 2019, arXiv 1903.10520).
    """

    config: _Config
    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        config = self.config
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        if config.norm_kind == "group":
            kernel = kernel - kernel.mean(axis=(0, 1, 2))
            kernel = kernel / (kernel.std(axis=(0, 1, 2)) + 1e-5)
        kernel = kernel.astype(config.dtype)
        x = common.convolve(x, kernel, self.stride, config.pad(self.kernel))
        if config.conv_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(config.dtype)
        return x


class _Unit(nn.Module):
    """A residual unit: `relu(shortcut(x) + branch(x))`."""

    config: _Config
    number: int  # of the unit, over all stages, from 0
    features: int
    stride: int
    unit: str  # first part of the names of its taps, such as "stage1/unit01"

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        config, unit = self.config, self.unit
        has_skip = config.skips.has(self.number)
        width = self.features * (4 if config.bottleneck else 1)
        kernels = (1, 3, 1) if config.bottleneck else (3, 3)
        strided = config.stride_conv if config.bottleneck else 1  # the convolution with the stride
        skip = f"{unit}/in" if has_skip else None
        reshapes = has_skip and (x.shape[-1] != width or self.stride != 1)
        if reshapes:
            skip = f"{unit}/shortcut_{'norm' if config.shortcut == 'project' else 'pad'}"
        y = x
        for i, kernel in enumerate(kernels, 1):
            last = i == len(kernels)
            stride = self.stride if i == strided else 1
            y = config.conv(width if last else self.features, kernel, stride, name=f"conv{i}")(y)
            y = map_tap(self, f"{unit}/conv{i}", y, "conv")
            y = config.norm(str(i), config.last_norm_scale if last else 1.0)(y)
            y = config.skips.drop(self, self.number, y) if last else nn.relu(y)
            y = map_tap(self, f"{unit}/norm{i}", y, "norm", skip=skip if last else None)
        if reshapes and config.shortcut == "project":
            x = config.conv(width, 1, self.stride, name="conv_proj")(x)
            x = map_tap(self, f"{unit}/shortcut_conv", x, "conv")
            x = config.norm("_proj")(x)
            x = map_tap(self, f"{unit}/shortcut_norm", x, "shortcut")
        elif reshapes:
            pad = width - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (pad // 2, pad - pad // 2)))
            x = map_tap(self, f"{unit}/shortcut_pad", x, "shortcut")
        y = skip_connection(self, f"{unit}/skip", x, skip) + y if has_skip else y
        return map_tap(self, f"{unit}/out", nn.relu(y), "residual")


class _Stage(nn.Module):
    """Units of one width; the first of them may halve the grid."""

    config: _Config
    features: int
    units: int
    number: int
    first_unit: int  # number of its first unit, over all stages, from 0
    before: str  # name of the tap that the first unit reads

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        previous = self.before
        for i in range(1, self.units + 1):
            unit = f"stage{self.number}/unit{i:02d}"
            alias(f"{unit}/in", previous)
            stride = 2 if i == 1 and self.number > 1 else 1
            number = self.first_unit + i - 1
            x = _Unit(self.config, number, self.features, stride, unit, name=f"unit{i}")(x)
            previous = f"{unit}/out"
        return x


class ResNet(nn.Module):
    """Residual network.

    Attributes:
      num_classes: width of the head; 0 for no head: the output is the pooled features.
      image_size: side of the images in pixels, or (rows, columns).
      units: number of residual units of each stage; each stage but the first halves the grid.
      widths: channels of the 3x3 convolutions of each stage.
      bottleneck: True for units of 1x1, 3x3 and 1x1 convolutions, the last with four times as many
        channels; False for units of two 3x3 convolutions.
      norm: "group": GroupNorm of 32 groups, and weight-standardised convolutions; "batch":
        BatchNorm, whose running means and variances are in `batch_stats`.
      epsilon: added to the variance in the norms.
      stem_kernel: size of the first convolution.
      stem_stride: stride of the first convolution.
      stem_pool: whether a 3x3 max pool of stride 2 follows it.
      stride_conv: which convolution of a bottleneck halves the grid: 2 is the 3x3, 1 the first 1x1.
      shortcut: what happens where the shape changes. "project": a convolution and a norm; "pad":
        every second position, with channels of zeros at both ends (option A of He et al.).
      conv_bias: whether convolutions have a bias.
      padding: "same" as in TensorFlow, or "both" as in PyTorch, equal at both ends. They differ
        where the stride is 2.
      last_norm_scale: initial scale of the last norm of each unit. With 0 a unit starts as its
        shortcut (Goyal et al. 2017, arXiv 1706.02677); a unit without a skip connection then
        returns zeros and has no gradient, so training refuses `no_skip` unless the scale is
        another, such as 1. Trained weights replace it.
      no_skip: units, counted from 0 over all stages, without their skip connection. The skip
        connection of a unit that changes the shape is its shortcut, which is then absent, with its
        parameters and taps.
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
    bottleneck: bool = True
    norm: str = "group"
    epsilon: float = 1e-6
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    stride_conv: int = 2
    shortcut: str = "project"
    conv_bias: bool = False
    padding: str = "same"
    last_norm_scale: float = 0.0
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
          train: whether BatchNorm uses the statistics of this batch and updates its running ones
            (then `batch_stats` must be mutable), and stochastic depth is on (it needs the rng
            "dropout"); the other norms are the same in training.

        Raises:
          ValueError: a field does not fit the others, or the images are of another size.
        """
        self._check_fields()
        image_sizes.check(images, self.image_size)
        skips = Skips(
            sum(self.units),
            tuple(self.no_skip),
            self.stochastic_depth,
            self.stochastic_depth_rule,
            train,
            parts="units",
        )
        if train and self.no_skip and self.last_norm_scale == 0:
            raise ValueError(
                f"the units {tuple(self.no_skip)} have no skip connection, and with "
                "last_norm_scale=0 they return zeros and have no gradient: they would never learn; "
                "set last_norm_scale=1 (trained weights replace it)"
            )
        config = _Config(
            bottleneck=self.bottleneck,
            norm_kind=self.norm,
            epsilon=self.epsilon,
            stride_conv=self.stride_conv,
            shortcut=self.shortcut,
            conv_bias=self.conv_bias,
            padding=self.padding,
            last_norm_scale=self.last_norm_scale,
            skips=skips,
            train=train,
            dtype=self.dtype,
        )
        x = jnp.asarray(images, self.dtype)
        x = config.conv(self.widths[0], self.stem_kernel, self.stem_stride, name="conv_root")(x)
        x = map_tap(self, "stem/conv", x, "conv")
        x = nn.relu(config.norm("_root")(x))
        x = map_tap(self, previous := "stem/norm", x, "norm")
        if self.stem_pool:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=config.pad(3))
            x = map_tap(self, previous := "stem/pool", x, "pool")
        for i, (units, width) in enumerate(zip(self.units, self.widths, strict=True), 1):
            first = sum(self.units[: i - 1])
            x = _Stage(config, width, units, i, first, previous, name=f"block{i}")(x)
            previous = f"stage{i}/unit{units:02d}/out"
        x = tap(self, "pooled", x.mean(axis=(1, 2)), role="pooled")
        return common.classify(self, x)

    def _check_fields(self) -> None:
        """Raises ValueError if the fields do not fit together."""
        check_name("norm of resnet", self.norm, ("group", "batch"))
        check_name("shortcut of resnet", self.shortcut, ("project", "pad"))
        check_name("padding of resnet", self.padding, ("same", "both"))
        if self.stride_conv not in (1, 2):
            raise ValueError(f"stride_conv is {self.stride_conv}; it must be 1 or 2")
        if len(self.units) != len(self.widths):
            raise ValueError(f"units {self.units} and widths {self.widths} differ in length")
        if self.norm == "group" and any(width % _GROUPS for width in self.widths):
            raise ValueError(
                f"widths {self.widths} must be multiples of {_GROUPS}, the groups of GroupNorm"
            )


NETWORK = ResNet

_UNITS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
_BATCH = {"norm": "batch", "epsilon": 1e-5, "padding": "both"}

# The networks of Raghu et al.; "x2" is twice as wide.
_GROUP_NORM = {
    f"R{depth}x{factor}": {"units": units, "widths": tuple(factor * w for w in (64, 128, 256, 512))}
    for depth, units in _UNITS.items()
    for factor in (1, 2)
}

# torchvision's, and timm's of the same form.
_BATCH_NORM = {depth: {"units": units, **_BATCH} for depth, units in _UNITS.items()} | {
    depth: {"units": units, "bottleneck": False, **_BATCH}
    for depth, units in {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}.items()
}

# Version 1 of keras.applications.
_KERAS = {
    f"{depth}-keras": {
        **_BATCH,
        "units": units,
        "epsilon": 1.001e-5,
        "stride_conv": 1,
        "conv_bias": True,
    }
    for depth, units in _UNITS.items()
}

# He et al., section 4.2: 6 n + 2 layers.
_CIFAR = {
    str(6 * n + 2): {
        **_BATCH,
        "units": (n, n, n),
        "widths": (16, 32, 64),
        "bottleneck": False,
        "shortcut": "pad",
        "stem_kernel": 3,
        "stem_stride": 1,
        "stem_pool": False,
        "image_size": 32,
        "num_classes": 10,
    }
    for n in (3, 5, 7, 9, 18)
}

# Small enough to train on a CPU: grids of 16, 8 and 4, 0.4 million parameters.
_SMALL = {
    "mini": {
        "units": (2, 2, 2),
        "widths": (32, 64, 64),
        "bottleneck": False,
        "stem_kernel": 3,
        "stem_pool": False,
        "image_size": 32,
        "num_classes": 10,
    }
}

VARIANTS = _GROUP_NORM | _BATCH_NORM | _KERAS | _CIFAR | _SMALL
