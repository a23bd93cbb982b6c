"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vitcnn.taps import tap

Images = Float[Array, "batch height width channel"]


class PatchEmbedding(nn.Module):
    """Maps each patch of pixels to a vector.

    It is a convolution whose stride is its size, done as one matrix product: XLA computes the
    gradient to the pixels, which receptive fields need, many times faster so.
    """

    patch: tuple[int, int]
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch tokens dim"]:
        """Returns one vector a patch, row by row."""
        (n, height, width, channels), (ph, pw) = x.shape, self.patch
        shape = (ph, pw, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x = x.reshape(n, height // ph, ph, width // pw, pw, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, -1, ph * pw * channels)
        return x @ kernel.reshape(-1, self.width).astype(self.dtype) + bias.astype(self.dtype)


def convolve(
    x: Images,
    kernel: Float[Array, "rows columns channel features"],
    stride: int,
    padding: str | Sequence[tuple[int, int]],
) -> Images:
    """Returns a convolution without bias.

    Args:
      x: the maps.
      kernel: the filters, of the type of the maps.
      stride: along both sides.
      padding: as `jax.lax.conv_general_dilated` takes it; a 1x1 kernel needs none.
    """
    if kernel.shape[:2] == (1, 1):
        # One matrix product, two to five times faster on a processor, gradients most of all.
        x = x[:, ::stride, ::stride]
        flat = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
        return flat.reshape(*x.shape[:-1], kernel.shape[-1])
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def map_tap(module: nn.Module, name: str, x: Images, role: str, skip: str | None = None) -> Images:
    """Exposes a map whose grid is its own size; see `vitcnn.taps.tap`."""
    return tap(module, name, x, role=role, grid=x.shape[1:3], skip=skip)


def logits(module: nn.Module, pooled: Float[Array, "batch width"]) -> Float[Array, "batch classes"]:
    """Returns the tapped logits of a network, or its pooled features if it has no classes.

    Args:
      module: with the fields `num_classes` and `dtype`, in its compact method; the dense layer is
        its "head" and starts at zero.
      pooled: what the head reads.
    """
    if not module.num_classes:
        return pooled
    head = nn.Dense(
        module.num_classes, dtype=module.dtype, kernel_init=nn.initializers.zeros, name="head"
    )
    return tap(module, "logits", head(pooled), role="logits")
