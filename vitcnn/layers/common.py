"""Layers that several model families share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.taps import tap

Images = Float[Array, "batch height width channel"]
# What a layer returns that changes the size of its maps or their number of channels.
NewImages = Float[Array, "batch new_height new_width new_channel"]


class PatchEmbedding(nn.Module):
    """Maps each patch of pixels to a vector.

    This is a convolution whose stride is the size of its kernel, computed as one matrix product:
    XLA then computes the gradient with respect to the pixels, which receptive fields need, many
    times faster.
    """

    patch: tuple[int, int]  # rows and columns, px
    width: int  # size of the vector
    dtype: Any
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch tokens dim"]:
        """Returns one vector for each patch, row by row."""
        (n, height, width, channels), (ph, pw) = x.shape, self.patch
        shape = (ph, pw, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x = x.reshape(n, height // ph, ph, width // pw, pw, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, -1, ph * pw * channels)
        x = x @ kernel.reshape(-1, self.width).astype(self.dtype)
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)


def convolve(
    x: Images,
    kernel: Float[ArrayLike, "rows columns group_channel features"],
    stride: int,
    padding: str | Sequence[tuple[int, int]],
    groups: int = 1,
) -> Float[Array, "batch new_height new_width features"]:
    """Convolves maps with filters, without a bias.

    Args:
      x: the maps.
      kernel: the filters, of the same dtype as the maps.
      stride: the same along rows and columns.
      padding: as `jax.lax.conv_general_dilated` takes it; a 1x1 kernel ignores it.
      groups: of channels; the filters of a group read its channels alone.
    """
    if kernel.shape[:2] == (1, 1) and groups == 1:
        # One matrix product is two to five times faster on a CPU, above all for gradients.
        x = x[:, ::stride, ::stride]
        flat = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
        return flat.reshape(*x.shape[:-1], kernel.shape[-1])
    pads = padding if isinstance(padding, str) else tuple(map(tuple, padding))
    return _convolution(x, kernel, stride, pads, groups)


def _convolve(x, kernel, stride, padding, groups, kernel_axes="HWIO"):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", kernel_axes, "NHWC"),
        feature_group_count=groups,
    )


# XLA's convolutions on a CPU need the kernel's axes in the order HWIO. The gradient with respect to
# the maps is a convolution with the kernel's channel axes exchanged, and XLA exchanges them back
# only outside of loops: in a loop, such as that of receptive fields over channels, the gradient of
# a small ResNet takes twenty times as long. So the derivative below is written with a kernel whose
# axes were exchanged before the loop. It is the same sum, and its transpose needs no exchange.
@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolution(x, kernel, stride, padding, groups):
    return _convolve(x, kernel, stride, padding, groups)


@_convolution.defjvp
def _derivative(stride, padding, groups, primals, tangents):
    (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
    along_maps = jax.lax.platform_dependent(
        x_tangent,
        kernel,
        jnp.swapaxes(kernel, 2, 3),
        cpu=lambda t, _, exchanged: _convolve(t, exchanged, stride, padding, groups, "HWOI"),
        default=lambda t, kernel, _: _convolve(t, kernel, stride, padding, groups),
    )
    along_kernel = _convolve(x, kernel_tangent, stride, padding, groups)
    return _convolution(x, kernel, stride, padding, groups), along_maps + along_kernel


def map_tap(module: nn.Module, name: str, x: Images, role: str, skip: str | None = None) -> Images:
    """Exposes a map whose grid of positions is its own height and width; see `vitcnn.tap`."""
    return tap(module, name, x, role=role, grid=x.shape[1:3], skip=skip)


def classify(
    module: nn.Module, pooled: Float[Array, "batch width"]
) -> Float[Array, "batch classes"]:
    """Applies the head of a network: a dense layer called "head", whose kernel starts at zero.

    Args:
      module: the network, inside its compact method; it has the fields `num_classes` and `dtype`.
      pooled: what the head reads.

    Returns:
      The logits, which are also the tap "logits"; `pooled` itself if there are no classes.
    """
    if not module.num_classes:
        return pooled
    head = nn.Dense(
        module.num_classes, dtype=module.dtype, kernel_init=nn.initializers.zeros, name="head"
    )
    return tap(module, "logits", head(pooled), role="logits")
