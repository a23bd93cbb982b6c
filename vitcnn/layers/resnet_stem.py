"""The ResNet of a hybrid, from whose map a ViT cuts its patches."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vitcnn.layers import common
from vitcnn.layers.common import Images, NewImages, map_tap
from vitcnn.layers.residual import Skips
from vitcnn.layers.resnet_unit import Config, Stage

FORMS = ("google", "timm")
_WIDTH = 64  # channels of the root, and of the 3x3 convolutions of the first stage


@dataclasses.dataclass(frozen=True)
class _Timm(Config):
    """The same ResNet as timm computes it, with another epsilon where filters are standardised."""

    def conv(
        self, features: int, kernel: int, stride: int, *, name: str, groups: int = 1
    ) -> nn.Module:
        """Returns a convolution."""
        return _Conv(self, features, kernel, stride, name=name)


class _Conv(nn.Module):
    """Convolution whose filters have mean 0 and deviation 1; 1e-8 is added to their variance."""

    config: Config
    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Images) -> NewImages:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        kernel = kernel - kernel.mean(axis=(0, 1, 2))
        kernel = kernel / jnp.sqrt(kernel.var(axis=(0, 1, 2)) + 1e-8)
        kernel, pads = kernel.astype(self.config.dtype), self.config.pad(self.kernel)
        return common.convolve(x, kernel, self.stride, pads)


def reduction(units: tuple[int, ...]) -> int:
    """Returns how many pixels a position of the map is wide, with so many units in each stage."""
    return 4 * 2 ** max(0, len(units) - 1)


@dataclasses.dataclass(frozen=True)
class ResNetStem:
    """A ResNet of the paper's form, without a head (Dosovitskiy et al. 2020, section 3.1).

    GroupNorm comes after each convolution, and filters are standardised. The root and each stage
    but the first halve the map; the root does so twice.

    Attributes:
      units: number of units of each stage; () for the root alone.
      form: "google": 1e-5 is added to the deviation of filters, and 1e-6 to the variance in norms;
        "timm": 1e-8 to the variance of filters, and 1e-5. Outputs of units differ by a thousandth.
      train: whether the network trains.
      dtype: type of the activations.
    """

    units: tuple[int, ...]
    form: str
    train: bool
    dtype: Any

    @property
    def reduction(self) -> int:
        """How many pixels a position of the map is wide."""
        return reduction(self.units)

    def __call__(self, module: nn.Module, x: Images) -> NewImages:
        """Returns the map of images; its parameters, under Google's names, belong to `module`.

        Args:
          module: the network, inside its compact method.
          x: images.
        """
        skips = Skips(sum(self.units), (), 0.0, "linear", self.train, parts="units")
        make, epsilon = {"google": (Config, 1e-6), "timm": (_Timm, 1e-5)}[self.form]
        config = make(
            bottleneck=True,
            expansion=4,
            groups=1,
            preactivation=False,
            norm_kind="group",
            epsilon=epsilon,
            attention="none",
            se_ratio=0.0,
            downsample="stride",
            stride_conv=2,
            shortcut="project",
            shortcut_pool=False,
            conv_bias=False,
            padding="same",
            last_norm_scale=1.0,
            skips=skips,
            train=self.train,
            dtype=self.dtype,
        )
        x = map_tap(module, "stem/conv", config.conv(_WIDTH, 7, 2, name="conv_root")(x), "conv")
        x = map_tap(module, "stem/norm", nn.relu(config.norm("_root")(x)), "norm")
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        x = map_tap(module, previous := "stem/pool", x, "pool")
        for i, units in enumerate(self.units, 1):
            first, width = sum(self.units[: i - 1]), _WIDTH * 2 ** (i - 1)
            x = Stage(config, width, units, i, first, previous, name=f"block{i}")(x)
            previous = f"stage{i}/unit{units:02d}/out"
        return x
