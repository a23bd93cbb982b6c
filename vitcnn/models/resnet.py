"""Post-activation residual networks (He et al. 2015, arXiv 1512.03385), with taps.

Four of their forms: the paper's (GroupNorm and weight-standardised convolutions, parameter names of
Google's vision_transformer `models_resnet`), BatchNorm as in torchvision (version 1.5) and in Keras
(version 1), and the CIFAR nets of two-convolution units with parameter-free shortcuts.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.layers import common
from vitcnn.layers import images as image_sizes
from vitcnn.layers.common import Images, map_tap
from vitcnn.lookup import check_name
from vitcnn.taps import alias, tap

KIND = "cnn"


class _Conv(nn.Module):
    """Convolution; with weight standardisation each filter has mean 0 and deviation 1 first."""

    features: int
    kernel: int
    stride: int = 1
    standardise: bool = False
    use_bias: bool = False
    padding: str = "same"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Images) -> Images:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        if self.standardise:  # Qiao et al. 2019, arXiv 1903.10520
            kernel = kernel - kernel.mean(axis=(0, 1, 2))
            kernel = kernel / (kernel.std(axis=(0, 1, 2)) + 1e-5)
        kernel = kernel.astype(self.dtype)
        x = common.convolve(x, kernel, self.stride, _padding(self.padding, self.kernel))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(self.dtype)
        return x


def _padding(padding: str, kernel: int) -> str | list[tuple[int, int]]:
    # "same" puts the odd row of a stride of 2 at the end; "both" pads the two ends alike.
    return "SAME" if padding == "same" else [((kernel - 1) // 2,) * 2] * 2


class _Unit(nn.Module):
    """A residual unit: `relu(shortcut(x) + branch(x))`."""

    features: int
    stride: int
    bottleneck: bool
    stride_conv: int
    shortcut: str
    norm_prefix: str
    conv: Any  # _Conv and a norm, all but their names and sizes given
    norm: Any
    unit: str  # "stage1/unit01", first part of the names of its taps

    @nn.compact
    def __call__(self, x: Images) -> Images:
        unit, width = self.unit, self.features * (4 if self.bottleneck else 1)
        projects = x.shape[-1] != width or self.stride != 1
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        skip = f"{unit}/in"
        if projects:
            skip = f"{unit}/shortcut_{'norm' if self.shortcut == 'project' else 'pad'}"
        y = x
        for i, kernel in enumerate(kernels, 1):
            last = i == len(kernels)
            stride = self.stride if i == (self.stride_conv if self.bottleneck else 1) else 1
            y = self.conv(width if last else self.features, kernel, stride, name=f"conv{i}")(y)
            y = map_tap(self, f"{unit}/conv{i}", y, "conv")
            # The last scale starts at zero, so that a unit starts as its shortcut (Goyal et al.
            # 2017, arXiv 1706.02677).
            start = nn.initializers.zeros if last else nn.initializers.ones
            y = self.norm(scale_init=start, name=f"{self.norm_prefix}{i}")(y)
            y = y if last else nn.relu(y)
            y = map_tap(self, f"{unit}/norm{i}", y, "norm", skip=skip if last else None)
        if projects and self.shortcut == "project":
            x = self.conv(width, 1, self.stride, name="conv_proj")(x)
            x = map_tap(self, f"{unit}/shortcut_conv", x, "conv")
            x = self.norm(name=f"{self.norm_prefix}_proj")(x)
            x = map_tap(self, f"{unit}/shortcut_norm", x, "shortcut")
        elif projects:
            pad = width - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (pad // 2, pad - pad // 2)))
            x = map_tap(self, f"{unit}/shortcut_pad", x, "shortcut")
        return map_tap(self, f"{unit}/out", nn.relu(x + y), "residual")


class _Stage(nn.Module):
    """Units of one width; the first may halve the grid."""

    units: int
    stride: int
    number: int
    before: str  # the tap that the first unit reads
    unit: Any  # _Unit, all but its stride and name given

    @nn.compact
    def __call__(self, x: Images) -> Images:
        before = self.before
        for i in range(1, self.units + 1):
            name = f"stage{self.number}/unit{i:02d}"
            alias(f"{name}/in", before)
            x = self.unit(stride=self.stride if i == 1 else 1, unit=name, name=f"unit{i}")(x)
            before = f"{name}/out"
        return x


class Module(nn.Module):
    """Residual network.

    Attributes:
      num_classes: width of the head; 0 for no head, then the output is the pooled features.
      image_size: side of the images in pixels, or (rows, columns).
      units: number of residual units of each stage; from the second on a stage halves the grid.
      widths: channels of the 3x3 convolutions of each stage.
      bottleneck: units of 1x1, 3x3 and 1x1 convolutions with four times as many channels at the
        end; False for units of two 3x3 convolutions.
      norm: "group": GroupNorm of 32 groups, and weight-standardised convolutions; "batch":
        BatchNorm, whose running means and variances are in `batch_stats`.
      epsilon: added to the variance in the norms.
      stem_kernel, stem_stride: of the first convolution.
      stem_pool: whether a 3x3 max pool of stride 2 follows it.
      stride_conv: which convolution of a bottleneck halves the grid: 2 is the 3x3, 1 the first 1x1.
      shortcut: "project": a convolution and a norm where the shape changes; "pad": every second
        position and channels of zeros at both ends (option A of He et al.).
      conv_bias: whether convolutions have a bias.
      padding: "same", TensorFlow's, or "both": equal at both ends, PyTorch's. They differ where the
        stride is 2.
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
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Float[Array, "batch classes"]:
        """Returns the logits of normalised RGB images.

        Args:
          images: images of `image_size`.
          train: whether BatchNorm uses the statistics of this batch and updates its running ones
            (then `batch_stats` must be mutable); the other norms are the same in training.

        Raises:
          ValueError: a field does not fit the others, or the images are of another size.
        """
        self._check()
        image_sizes.check(images, self.image_size)
        group = self.norm == "group"
        prefix = "gn" if group else "bn"
        conv = functools.partial(
            _Conv,
            standardise=group,
            use_bias=self.conv_bias,
            padding=self.padding,
            dtype=self.dtype,
        )
        kind = (
            functools.partial(nn.GroupNorm, num_groups=32)
            if group
            else functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        )
        norm = functools.partial(
            kind, epsilon=self.epsilon, use_fast_variance=False, dtype=self.dtype
        )
        x = jnp.asarray(images, self.dtype)
        x = conv(self.widths[0], self.stem_kernel, self.stem_stride, name="conv_root")(x)
        x = map_tap(self, "stem/conv", x, "conv")
        x = nn.relu(norm(name=f"{prefix}_root")(x))
        x = map_tap(self, before := "stem/norm", x, "norm")
        if self.stem_pool:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=_padding(self.padding, 3))
            x = map_tap(self, before := "stem/pool", x, "pool")
        for i, (units, width) in enumerate(zip(self.units, self.widths, strict=True), 1):
            unit = functools.partial(
                _Unit,
                features=width,
                bottleneck=self.bottleneck,
                stride_conv=self.stride_conv,
                shortcut=self.shortcut,
                norm_prefix=prefix,
                conv=conv,
                norm=norm,
            )
            x = _Stage(units, 1 if i == 1 else 2, i, before, unit, name=f"block{i}")(x)
            before = f"stage{i}/unit{units:02d}/out"
        x = tap(self, "pooled", x.mean(axis=(1, 2)), role="pooled")
        return common.logits(self, x)

    def _check(self) -> None:
        """Raises ValueError if the fields do not fit together."""
        check_name("norm of resnet", self.norm, ("group", "batch"))
        check_name("shortcut of resnet", self.shortcut, ("project", "pad"))
        check_name("padding of resnet", self.padding, ("same", "both"))
        if self.stride_conv not in (1, 2):
            raise ValueError(f"stride_conv is {self.stride_conv}; it must be 1 or 2")
        if len(self.units) != len(self.widths):
            raise ValueError(f"units {self.units} and widths {self.widths} differ in length")
        if self.norm == "group" and any(width % 32 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of 32, the GroupNorm groups")


_UNITS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
_BATCH = {"norm": "batch", "epsilon": 1e-5, "padding": "both"}

VARIANTS = (
    {  # the paper's; "x2" is twice as wide
        f"R{depth}x{factor}": {
            "units": units,
            "widths": tuple(factor * w for w in (64, 128, 256, 512)),
        }
        for depth, units in _UNITS.items()
        for factor in (1, 2)
    }
    | {depth: {"units": units, **_BATCH} for depth, units in _UNITS.items()}
    | {  # version 1 of keras.applications
        f"{depth}-keras": {
            **_BATCH,
            "units": units,
            "epsilon": 1.001e-5,
            "stride_conv": 1,
            "conv_bias": True,
        }
        for depth, units in _UNITS.items()
    }
    | {
        depth: {"units": units, "bottleneck": False, **_BATCH}
        for depth, units in {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}.items()
    }
    | {  # He et al., section 4.2: 6 n + 2 layers
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
    | {  # Small enough to train on a processor: grids of 16, 8 and 4, 0.4 million parameters.
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
)
