"""Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929), with taps.

Blocks are pre-norm: `x = x + attention(norm(x)); x = x + mlp(norm(x))`. Parameters have the names
and shapes of Google's released checkpoints, so these need no rename table.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.lookup import check_name
from vitcnn.models import _images
from vitcnn.taps import alias, tap

# Stable under a large mean: E[x^2] - E[x]^2 loses digits where the residual stream has an offset.
_layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)

# What the released models started from.
_dense = functools.partial(
    nn.Dense,
    kernel_init=nn.initializers.xavier_uniform(),
    bias_init=nn.initializers.normal(1e-6),
)


class _Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d)) V, heads joined by a projection."""

    heads: int
    block: str  # first part of the names of its taps
    where: dict[str, Any]  # grid and prefix_tokens of the taps
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        project = functools.partial(
            nn.DenseGeneral, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        # The head axis goes before the tokens at once: XLA multiplies batches of matrices two to
        # three times faster on a processor when no dot has to move axes.
        query, key, value = (
            project((self.heads, width // self.heads), name=name)(x).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        query = query / jnp.sqrt(width // self.heads).astype(query.dtype)
        scores = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores)  # float32, whatever the activations' type
        where = {"heads": self.heads, **self.where}
        name = f"{self.block}/attn_weights"
        weights = tap(self, name, weights, role="attention_weights", **where)
        x = jnp.matmul(weights.astype(self.dtype), value).transpose(0, 2, 1, 3)
        x = tap(self, f"{self.block}/heads", x, role="heads", **where)
        return project(width, axis=(-2, -1), name="out")(x)


class _Mlp(nn.Module):
    """Two dense layers with a GELU between."""

    mlp_dim: int
    gelu: str
    block: str
    where: dict[str, Any]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        x = _dense(self.mlp_dim, dtype=self.dtype, name="Dense_0")(x)
        x = nn.gelu(x, approximate=self.gelu == "tanh")
        x = tap(self, f"{self.block}/hidden", x, role="hidden", **self.where)
        return _dense(width, dtype=self.dtype, name="Dense_1")(x)


class _Block(nn.Module):
    """One Transformer block. Numbers in parameter names are those of the released checkpoints."""

    heads: int
    mlp_dim: int
    gelu: str
    skips: bool
    block: str
    where: dict[str, Any]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        block, where, dtype = self.block, self.where, self.dtype
        y = _layer_norm(dtype=dtype, name="LayerNorm_0")(x)
        y = tap(self, f"{block}/ln1", y, role="norm", **where)
        y = _Attention(
            self.heads, block, where, dtype=dtype, name="MultiHeadDotProductAttention_1"
        )(y)
        skip = f"{block}/in" if self.skips else None
        y = tap(self, f"{block}/attn", y, role="attention", skip=skip, **where)
        x = tap(self, f"{block}/mid", x + y if self.skips else y, role="residual", **where)
        y = _layer_norm(dtype=dtype, name="LayerNorm_2")(x)
        y = tap(self, f"{block}/ln2", y, role="norm", **where)
        y = _Mlp(self.mlp_dim, self.gelu, block, where, dtype=dtype, name="MlpBlock_3")(y)
        skip = f"{block}/mid" if self.skips else None
        y = tap(self, f"{block}/mlp", y, role="mlp", skip=skip, **where)
        return tap(self, f"{block}/out", x + y if self.skips else y, role="residual", **where)


class _PatchEmbedding(nn.Module):
    """Maps each patch of pixels to a vector.

    It is a convolution whose stride is its size, done as one matrix product: XLA computes the
    gradient to the pixels, which receptive fields need, many times faster so.
    """

    patch: tuple[int, int]
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch tokens dim"]:
        (n, height, width, channels), (ph, pw) = x.shape, self.patch
        shape = (ph, pw, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x = x.reshape(n, height // ph, ph, width // pw, pw, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, -1, ph * pw * channels)
        return x @ kernel.reshape(-1, self.width).astype(self.dtype) + bias.astype(self.dtype)


class _PositionEmbedding(nn.Module):
    """Adds a learned vector to each token."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        embedding = self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + embedding.astype(self.dtype)


class _Encoder(nn.Module):
    """Position embedding, the blocks, and the final norm."""

    depth: int
    heads: int
    mlp_dim: int
    gelu: str
    no_skip: tuple[int, ...]
    where: dict[str, Any]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        x = _PositionEmbedding(self.dtype, name="posembed_input")(x)
        x = tap(self, "embed", x, role="embed", **self.where)
        before = "embed"
        for i in range(self.depth):
            block = f"block{i:02d}"
            alias(f"{block}/in", before)
            x = _Block(
                self.heads,
                self.mlp_dim,
                self.gelu,
                i not in self.no_skip,
                block,
                self.where,
                dtype=self.dtype,
                name=f"encoderblock_{i}",
            )(x)
            before = f"{block}/out"
        x = _layer_norm(dtype=self.dtype, name="encoder_norm")(x)
        return tap(self, "norm", x, role="norm", **self.where)


class Module(nn.Module):
    """Vision Transformer.

    Attributes:
      num_classes: width of the head; 0 for no head, then the output is what the head would read.
      image_size: side of the images in pixels, or (rows, columns).
      patch: side of a patch in pixels, or (rows, columns); it divides the image size.
      width: size of a token.
      depth: number of blocks.
      mlp_dim: width of the hidden layer of each block's MLP.
      heads: attention heads of each block; they divide the width.
      pool: "token": a class token is put before the patches and read at the end; "gap": there is no
        class token, the tokens of the final norm are averaged.
      gelu: "tanh", the approximation that Google's models use, or "exact".
      pre_logits: width of a hidden tanh layer before the head, None for no such layer.
      no_skip: blocks, counted from 0, without their two skip connections (Raghu et al., figure 8).
      dtype: type of the activations; parameters are float32.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    patch: int | tuple[int, int] = 16
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    heads: int = 12
    pool: str = "token"
    gelu: str = "tanh"
    pre_logits: int | None = None
    no_skip: tuple[int, ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Returns the logits of normalised RGB images; `train` changes nothing in this family.

        Raises:
          ValueError: a field does not fit the others, or the images are of another size.
        """
        rows, columns = self._check()
        _images.check(images, self.image_size)
        where = {"grid": (rows, columns), "prefix_tokens": int(self.pool == "token")}
        x = jnp.asarray(images, self.dtype)
        x = _PatchEmbedding(
            _images.pair(self.patch), self.width, dtype=self.dtype, name="embedding"
        )(x)
        if self.pool == "token":
            token = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            token = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([token, x], axis=1)
        x = _Encoder(
            self.depth,
            self.heads,
            self.mlp_dim,
            self.gelu,
            tuple(self.no_skip),
            where,
            dtype=self.dtype,
            name="Transformer",
        )(x)
        x = x[:, 0] if self.pool == "token" else x.mean(axis=1)
        x = tap(self, "pooled", x, role="pooled")
        if self.pre_logits is not None:
            x = jnp.tanh(nn.Dense(self.pre_logits, dtype=self.dtype, name="pre_logits")(x))
            x = tap(self, "pre_logits", x, role="pre_logits")
        if not self.num_classes:
            return x
        head = nn.Dense(
            self.num_classes, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="head"
        )
        return tap(self, "logits", head(x), role="logits")

    def _check(self) -> tuple[int, int]:
        """Returns the grid of patches; raises ValueError if the fields do not fit together."""
        check_name("pool of vit", self.pool, ("token", "gap"))
        check_name("gelu of vit", self.gelu, ("tanh", "exact"))
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if any(not 0 <= i < self.depth for i in self.no_skip):
            raise ValueError(
                f"no_skip is {tuple(self.no_skip)}, but blocks are 0 to {self.depth - 1}"
            )
        (height, width), (ph, pw) = _images.pair(self.image_size), _images.pair(self.patch)
        if height % ph or width % pw:
            raise ValueError(
                f"image_size {height} x {width} is not a multiple of the patch, {ph} x {pw}; "
                f"the nearest size is {max(1, round(height / ph)) * ph} x "
                f"{max(1, round(width / pw)) * pw}"
            )
        return height // ph, width // pw


_SIZES = {  # Dosovitskiy et al., table 1; Ti and S as in Steiner et al. 2021, arXiv 2106.10270
    "Ti": {"width": 192, "depth": 12, "mlp_dim": 768, "heads": 3},
    "S": {"width": 384, "depth": 12, "mlp_dim": 1536, "heads": 6},
    "B": {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12},
    "L": {"width": 1024, "depth": 24, "mlp_dim": 4096, "heads": 16},
    "H": {"width": 1280, "depth": 32, "mlp_dim": 5120, "heads": 16},
}

_SMALL = {"patch": 4, "image_size": 32, "num_classes": 10}

VARIANTS = {
    f"{size}/{patch}": {**fields, "patch": patch, "image_size": 224}
    for size, fields in _SIZES.items()
    for patch in (8, 14, 16, 32)
} | {
    # Small enough to train on a processor: 64 patches, half a million parameters.
    "mini/4": {"width": 96, "depth": 6, "mlp_dim": 192, "heads": 3, **_SMALL},
    "cifar/4": {"width": 128, "depth": 4, "mlp_dim": 256, "heads": 4, "gelu": "exact", **_SMALL},
}
