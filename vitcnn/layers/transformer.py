"""A block of a Vision Transformer, with taps."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.taps import tap

# What the released models started from.
_dense = functools.partial(
    nn.Dense,
    kernel_init=nn.initializers.xavier_uniform(),
    bias_init=nn.initializers.normal(1e-6),
)


_LONG = 512  # tokens of which the weights of one head just fit the cache of a processor

Heads = Float[Array, "*heads tokens dim"]


def _attend(query: Heads, key: Heads, value: Heads) -> tuple[Float[Array, "..."], Heads]:
    """Returns the weights, in float32 whatever the activations' type, and what they pick."""
    scores = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores)
    return weights, jnp.matmul(weights.astype(value.dtype), value)


def _attend_head_by_head(query: Heads, key: Heads, value: Heads):
    """Does the same in a loop, twice as fast with many tokens, whose weights leave the cache."""
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    weights, x = jax.lax.map(lambda head: _attend(*head), tuple(flat))
    return tuple(y.reshape(*query.shape[:-2], *y.shape[1:]) for y in (weights, x))


class _Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d)) V, heads joined by a projection."""

    heads: int
    block: str  # first part of the names of its taps
    where: dict[str, Any]  # grid, prefix_tokens and class_token of the taps
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
        attend = _attend
        if x.shape[1] >= _LONG:  # elsewhere a loop would leave the device idle
            attend = functools.partial(
                jax.lax.platform_dependent, cpu=_attend_head_by_head, default=_attend
            )
        weights, x = attend(query, key, value)
        where = {"heads": self.heads, **self.where}
        name = f"{self.block}/attn_weights"
        tap(self, name, weights, role="attention_weights", **where)
        x = x.transpose(0, 2, 1, 3)
        x = tap(self, f"{self.block}/heads", x, role="heads", **where)
        return project(width, axis=(-2, -1), name="out")(x)


class _Mlp(nn.Module):
    """Two dense layers with a GELU between; gated, silu(gate) * value between (SwiGLU).

    Gated, the first layer gives both: its first `mlp_dim` outputs are the gate, the others the
    value, as in the files of timm and DINOv2. The tap `hidden` is what the last layer reads: what
    the GELU gives, or that product.
    """

    mlp_dim: int
    gelu: str
    gated: bool
    block: str
    where: dict[str, Any]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        x = _dense(self.mlp_dim * (1 + self.gated), dtype=self.dtype, name="Dense_0")(x)
        if self.gated:
            x = nn.silu(x[..., : self.mlp_dim]) * x[..., self.mlp_dim :]
        else:
            x = nn.gelu(x, approximate=self.gelu == "tanh")
        x = tap(self, f"{self.block}/hidden", x, role="hidden", **self.where)
        return _dense(width, dtype=self.dtype, name="Dense_1")(x)


class _LayerScale(nn.Module):
    """Multiplies each channel of a branch by a learned number (Touvron et al. 2021, CaiT)."""

    start: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        gamma = self.param("gamma", nn.initializers.constant(self.start), (x.shape[-1],))
        return x * gamma.astype(self.dtype)


class Block(nn.Module):
    """One Transformer block. Numbers in parameter names are those of the released checkpoints."""

    heads: int
    mlp_dim: int
    gelu: str
    gated: bool
    skips: bool
    layer_scale: float | None
    block: str
    where: dict[str, Any]
    norm: Any  # nn.LayerNorm, all but its name given
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Returns the residual stream after the block."""
        block, where, dtype = self.block, self.where, self.dtype
        scaled = self.layer_scale is not None
        y = self.norm(name="LayerNorm_0")(x)
        y = tap(self, f"{block}/ln1", y, role="norm", **where)
        y = _Attention(
            self.heads, block, where, dtype=dtype, name="MultiHeadDotProductAttention_1"
        )(y)
        y = _LayerScale(self.layer_scale, dtype, name="ls1")(y) if scaled else y
        skip = f"{block}/in" if self.skips else None
        y = tap(self, f"{block}/attn", y, role="attention", skip=skip, **where)
        x = tap(self, f"{block}/mid", x + y if self.skips else y, role="residual", **where)
        y = self.norm(name="LayerNorm_2")(x)
        y = tap(self, f"{block}/ln2", y, role="norm", **where)
        mlp = _Mlp(
            self.mlp_dim, self.gelu, self.gated, block, where, dtype=dtype, name="MlpBlock_3"
        )
        y = mlp(y)
        y = _LayerScale(self.layer_scale, dtype, name="ls2")(y) if scaled else y
        skip = f"{block}/mid" if self.skips else None
        y = tap(self, f"{block}/mlp", y, role="mlp", skip=skip, **where)
        return tap(self, f"{block}/out", x + y if self.skips else y, role="residual", **where)
