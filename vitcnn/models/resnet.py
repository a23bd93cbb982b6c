"""Residual networks (He et al. 2015, arXiv 1512.03385) and their relatives, with taps.

The paper's form has GroupNorm and weight-standardised convolutions, and the parameter names of
Google's vision_transformer `models_resnet`. Others have BatchNorm, as in torchvision (version 1.5)
and in Keras (version 1), or are the CIFAR nets of two-convolution units with parameter-free
shortcuts. Fields make of them ResNeXts, wide ResNets, ResNet-C, -D, -S and -T, SE- and ECA-ResNets,
ResNet-RS, anti-aliased ones, and version 2, whose norms come before the convolutions.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.layers import common, image_sizes
from vitcnn.layers.common import Images, NewImages, map_tap
from vitcnn.layers.residual import Skips
from vitcnn.layers.resnet_unit import GROUPS, Config, Stage
from vitcnn.lookup import check_name
from vitcnn.taps import tap

KIND = "cnn"

# What norms, and ways to halve a grid, are called elsewhere.
_NORM_WORDS = {"bn": "batch", "gn": "group"}
_HALF_WORDS = {"avg": "mean", "average": "mean", "antialiased": "blur", "none": "stride"}


class ResNet(nn.Module):
    """Residual network.

    Attributes:
      num_classes: width of the head; 0 for no head: the output is the pooled features.
      image_size: side of the images in pixels, or (rows, columns).
      units: number of residual units of each stage; each stage but the first halves the grid.
      widths: channels of the 3x3 convolutions of each stage.
      bottleneck: True for units of 1x1, 3x3 and 1x1 convolutions, the last with `expansion` times
        as many channels; False for units of two 3x3 convolutions.
      expansion: channels of the output of a bottleneck for each channel of its 3x3 convolution.
      groups: of channels of the 3x3 convolution of a bottleneck; more than 1 make a ResNeXt (Xie et
        al. 2016, arXiv 1611.05431).
      preactivation: whether norms and ReLUs come before the convolutions, and another norm at the
        end of the network: version 2 (He et al. 2016, arXiv 1603.05027).
      norm: "group": GroupNorm of 32 groups, and weight-standardised convolutions; "plain_group":
        GroupNorm alone; "batch": BatchNorm, whose running means and variances are in `batch_stats`.
      epsilon: added to the variance in the norms.
      attention: how the output of a branch is multiplied, channel by channel, by a function of the
        means of its channels: "none", "se" (squeeze and excitation) or "eca".
      se_ratio: width of the hidden layer of "se", as a share of the channels.
      downsample: what halves the grid. "stride": convolutions and the max pool of the stem skip
        every second position; "blur": a filter (1, 2, 1) / 4 that follows them skips them (Zhang
        2019, arXiv 1904.11486); "mean": the mean of 2 x 2 positions, in the stem instead of the
        max pool.
      stem_widths: channels of each convolution of the stem, of which the first has `stem_stride`;
        () for one convolution of the first of `widths`.
      stem_kernel: size of the convolutions of the stem.
      stem_stride: stride of the first convolution.
      stem_pool: whether a 3x3 max pool of stride 2 follows them.
      stem_pool_conv: whether a 3x3 convolution of stride 2 and a norm take the place of the max
        pool, as in ResNet-RS (Bello et al. 2021, arXiv 2103.07579).
      stride_conv: which convolution of a bottleneck halves the grid: 2 is the 3x3, 1 the first 1x1.
      shortcut: what happens where the shape changes. "project": a convolution and a norm; "pad":
        every second position, with channels of zeros at both ends (option A of He et al.).
      shortcut_pool: whether the projection reads means of 2 x 2 positions rather than every second
        one, as in ResNet-D (He et al. 2018, arXiv 1812.01187).
      conv_bias: whether convolutions have a bias.
      padding: "same" as in TensorFlow, or "both" as in PyTorch, equal at both ends. They differ
        where the stride is 2.
      last_norm_scale: initial scale of the last norm of each unit. With 0 a unit starts as its
        shortcut (Goyal et al. 2017, arXiv 1706.02677); a unit without a skip connection then
        returns zeros and has no gradient, so training refuses `no_skip` unless the scale is
        another, such as 1. Trained weights replace it. With `preactivation` it is always 1.
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
    expansion: float = 4.0
    groups: int = 1
    preactivation: bool = False
    norm: str = "group"
    epsilon: float = 1e-6
    attention: str = "none"
    se_ratio: float = 1 / 16
    downsample: str = "stride"
    stem_widths: tuple[int, ...] = ()
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    stem_pool_conv: bool = False
    stride_conv: int = 2
    shortcut: str = "project"
    shortcut_pool: bool = False
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
        if train and self.no_skip and self.last_norm_scale == 0 and not self.preactivation:
            raise ValueError(
                f"the units {tuple(self.no_skip)} have no skip connection, and with "
                "last_norm_scale=0 they return zeros and have no gradient: they would never learn; "
                "set last_norm_scale=1 (trained weights replace it)"
            )
        config = Config(
            bottleneck=self.bottleneck,
            expansion=self.expansion,
            groups=self.groups,
            preactivation=self.preactivation,
            norm_kind=self.norm,
            epsilon=self.epsilon,
            attention=self.attention,
            se_ratio=self.se_ratio,
            downsample=self.downsample,
            stride_conv=self.stride_conv,
            shortcut=self.shortcut,
            shortcut_pool=self.shortcut_pool,
            conv_bias=self.conv_bias,
            padding=self.padding,
            last_norm_scale=self.last_norm_scale,
            skips=skips,
            train=train,
            dtype=self.dtype,
        )
        x, previous = self._stem(jnp.asarray(images, self.dtype), config)
        for i, (units, width) in enumerate(zip(self.units, self.widths, strict=True), 1):
            first = sum(self.units[: i - 1])
            x = Stage(config, width, units, i, first, previous, name=f"block{i}")(x)
            previous = f"stage{i}/unit{units:02d}/out"
        if self.preactivation:
            x = map_tap(self, "norm", nn.relu(config.norm("_final")(x)), "norm")
        x = tap(self, "pooled", x.mean(axis=(1, 2)), role="pooled")
        return common.classify(self, x)

    def _stem(self, x: Images, config: Config) -> tuple[NewImages, str]:
        """Returns what the first unit reads, and the name of its tap."""
        widths = self.stem_widths or self.widths[:1]
        for i, width in enumerate(widths, 1):
            last = i == len(widths)
            number = "" if last else str(i)  # the last is stem/conv, of however many
            stride = self.stem_stride if i == 1 else 1
            x = config.conv(width, self.stem_kernel, stride, name=f"conv_root{number}")(x)
            x = map_tap(self, previous := f"stem/conv{number}", x, "conv")
            if last and self.preactivation:
                break  # the first norm is that of the first unit
            x = nn.relu(config.norm(f"_root{number}")(x))
            x = map_tap(self, previous := f"stem/norm{number}", x, "norm")
        if not self.stem_pool:
            return x, previous
        if self.stem_pool_conv:
            x = config.conv(x.shape[-1], 3, 2, name="conv_pool")(x)
            x = map_tap(self, "stem/pool_conv", x, "conv")
            x = nn.relu(config.norm("_pool")(x))
        elif self.downsample == "mean":
            x = config.halve(x)
        else:
            stride = 2 if self.downsample == "stride" else 1
            x = nn.max_pool(x, (3, 3), strides=(stride, stride), padding=config.pad(3))
            x = x if stride == 2 else config.halve(x)
        return map_tap(self, "stem/pool", x, "pool"), "stem/pool"

    def _check_fields(self) -> None:
        """Raises ValueError if the fields do not fit together."""
        check_name("norm of resnet", self.norm, ("group", "plain_group", "batch"), _NORM_WORDS)
        check_name("attention of resnet", self.attention, ("none", "se", "eca"))
        check_name("downsample of resnet", self.downsample, ("stride", "blur", "mean"), _HALF_WORDS)
        check_name("shortcut of resnet", self.shortcut, ("project", "pad"))
        check_name("padding of resnet", self.padding, ("same", "both"))
        if self.stride_conv not in (1, 2):
            raise ValueError(f"stride_conv is {self.stride_conv}; it must be 1 or 2")
        if len(self.units) != len(self.widths):
            raise ValueError(f"units {self.units} and widths {self.widths} differ in length")
        if self.downsample != "stride" and (self.preactivation or self.stem_pool_conv):
            other = "preactivation" if self.preactivation else "stem_pool_conv"
            raise ValueError(
                f"downsample={self.downsample!r} and {other}=True are not supported together; set "
                f"downsample='stride' or {other}=False"
            )
        if self.stem_pool_conv and not self.stem_pool:
            raise ValueError("stem_pool_conv=True replaces a pool, and stem_pool is False")
        if self.shortcut_pool and self.shortcut != "project":
            raise ValueError(
                "shortcut_pool=True pools in front of a projection, and shortcut is "
                f"{self.shortcut!r}; set shortcut='project'"
            )
        if self.groups != 1 and not self.bottleneck:
            raise ValueError(
                f"groups is {self.groups}, but only bottlenecks have groups; set it to 1"
            )
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of groups, {self.groups}")
        if self.norm == "batch":
            return
        channels = {"widths": self.widths, "stem_widths": self.stem_widths}
        for name, values in channels.items():
            if any(width % GROUPS for width in values):
                raise ValueError(
                    f"{name} {values} must be multiples of {GROUPS}, the groups of GroupNorm"
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
_BATCH_NORM = {
    depth: {"units": units, **_BATCH}
    for depth, units in {"26": (2, 2, 2, 2), **_UNITS, "200": (3, 24, 36, 3)}.items()
} | {
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

# timm's other networks, under its names. Letters are those of He et al. 2018 (arXiv 1812.01187) and
# of MXNet's Gluon: C has a stem of three convolutions, D also pools in its shortcuts, S has a wider
# stem of three, T a narrower one, and pools.
_C = {"stem_kernel": 3, "stem_widths": (32, 32, 64)}
_D = {**_C, "shortcut_pool": True}
_S = {"stem_kernel": 3, "stem_widths": (64, 64, 128)}
_T = {**_D, "stem_widths": (24, 32, 64)}
_BASIC = {"bottleneck": False}
_SE, _ECA = {"attention": "se"}, {"attention": "eca"}
_RS = {**_D, **_SE, "se_ratio": 0.25, "stem_pool_conv": True}
_BLUR, _MEAN = {"downsample": "blur"}, {"downsample": "mean"}
_V2 = {"preactivation": True}


def _units(*units: int) -> dict[str, Any]:
    """Returns the fields of a network with BatchNorm and so many units in each stage."""
    return {**_BATCH, "units": units}


def _groups(groups: int, width: int) -> dict[str, Any]:
    """Returns what makes a ResNeXt of some groups, each of so many channels in the first stage."""
    channels = groups * width
    return {
        "groups": groups,
        "widths": tuple(channels * factor for factor in (1, 2, 4, 8)),
        "expansion": 256 / channels,
        "stem_widths": (64,),
    }


_10, _26 = _units(1, 1, 1, 1), _units(2, 2, 2, 2)
_50, _101 = _units(3, 4, 6, 3), _units(3, 4, 23, 3)
_152, _200, _269 = _units(3, 8, 36, 3), _units(3, 24, 36, 3), _units(3, 30, 48, 8)
_18, _34 = _26 | _BASIC, _50 | _BASIC
_WIDE = _groups(1, 128)
_32X4, _32X8, _64X4 = _groups(32, 4), _groups(32, 8), _groups(64, 4)

_TIMM = {
    "resnet10t": _10 | _BASIC | _T,
    "resnet14t": _10 | _T,
    "resnet18d": _18 | _D,
    "resnet26d": _26 | _D,
    "resnet26t": _26 | _T,
    "resnet34d": _34 | _D,
    "resnet50c": _50 | _C,
    "resnet50d": _50 | _D,
    "resnet50s": _50 | _S,
    "resnet50t": _50 | _T,
    "resnet50_gn": _50 | {"norm": "plain_group"},
    "resnet101c": _101 | _C,
    "resnet101d": _101 | _D,
    "resnet101s": _101 | _S,
    "resnet152c": _152 | _C,
    "resnet152d": _152 | _D,
    "resnet152s": _152 | _S,
    "resnet200d": _200 | _D,
    "wide_resnet50_2": _50 | _WIDE,
    "wide_resnet101_2": _101 | _WIDE,
    "resnext50_32x4d": _50 | _32X4,
    "resnext50d_32x4d": _50 | _32X4 | _D,
    "resnext101_32x4d": _101 | _32X4,
    "resnext101_32x8d": _101 | _32X8,
    "resnext101_32x16d": _101 | _groups(32, 16),
    "resnext101_32x32d": _101 | _groups(32, 32),
    "resnext101_64x4d": _101 | _64X4,
    "ecaresnet26t": _26 | _T | _ECA,
    "ecaresnet50d": _50 | _D | _ECA,
    "ecaresnet50t": _50 | _T | _ECA,
    "ecaresnet101d": _101 | _D | _ECA,
    "ecaresnet200d": _200 | _D | _ECA,
    "ecaresnet269d": _269 | _D | _ECA,
    "ecaresnetlight": _units(1, 1, 11, 3) | _ECA | {"shortcut_pool": True},
    "ecaresnext26t_32x4d": _26 | _32X4 | _T | _ECA,
    "ecaresnext50t_32x4d": _50 | _32X4 | _T | _ECA,
    "seresnet18": _18 | _SE,
    "seresnet34": _34 | _SE,
    "seresnet50": _50 | _SE,
    "seresnet50t": _50 | _T | _SE,
    "seresnet101": _101 | _SE,
    "seresnet152": _152 | _SE,
    "seresnet152d": _152 | _D | _SE,
    "seresnet200d": _200 | _D | _SE,
    "seresnet269d": _269 | _D | _SE,
    "seresnext26d_32x4d": _26 | _32X4 | _D | _SE,
    "seresnext26t_32x4d": _26 | _32X4 | _T | _SE,
    "seresnext50_32x4d": _50 | _32X4 | _SE,
    "seresnext101_32x4d": _101 | _32X4 | _SE,
    "seresnext101_32x8d": _101 | _32X8 | _SE,
    "seresnext101d_32x8d": _101 | _32X8 | _D | _SE,
    "seresnext101_64x4d": _101 | _64X4 | _SE,
    "resnetblur18": _18 | _BLUR,
    "resnetblur50": _50 | _BLUR,
    "resnetblur50d": _50 | _D | _BLUR,
    "resnetblur101d": _101 | _D | _BLUR,
    "resnetaa34d": _34 | _D | _MEAN,
    "resnetaa50": _50 | _MEAN,
    "resnetaa50d": _50 | _D | _MEAN,
    "resnetaa101d": _101 | _D | _MEAN,
    "seresnetaa50d": _50 | _D | _MEAN | _SE,
    "seresnextaa101d_32x8d": _101 | _32X8 | _D | _MEAN | _SE,
    "seresnextaa201d_32x8d": _units(3, 24, 36, 4) | _32X8 | _D | _S | _MEAN | _SE,
    "resnetrs50": _50 | _RS,
    "resnetrs101": _101 | _RS,
    "resnetrs152": _152 | _RS,
    "resnetrs200": _200 | _RS,
    "resnetrs270": _units(4, 29, 53, 4) | _RS,
    "resnetrs350": _units(4, 36, 72, 4) | _RS,
    "resnetrs420": _units(4, 44, 87, 4) | _RS,
    "resnetv2_18": _18 | _V2,
    "resnetv2_18d": _18 | _D | _V2,
    "resnetv2_34": _34 | _V2,
    "resnetv2_34d": _34 | _D | _V2,
    "resnetv2_50": _50 | _V2,
    "resnetv2_50d": _50 | _D | _V2,
    "resnetv2_50t": _50 | _T | _V2,
    "resnetv2_50d_gn": _50 | _D | _V2 | {"norm": "plain_group"},
    "resnetv2_101": _101 | _V2,
    "resnetv2_101d": _101 | _D | _V2,
    "resnetv2_152": _152 | _V2,
    "resnetv2_152d": _152 | _D | _V2,
}

VARIANTS = _GROUP_NORM | _BATCH_NORM | _KERAS | _CIFAR | _SMALL | _TIMM

# timm's architectures -> the variants that compute the same.
ARCHITECTURES = {f"resnet{depth}": depth for depth in _BATCH_NORM} | {name: name for name in _TIMM}
