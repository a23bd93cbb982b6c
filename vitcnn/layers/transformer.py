"""A block of a Vision Transformer, with taps.

Every block, and every layer inside it, gets the same `Config`. A new option of the network is a new
field of `Config` and a line in the layer that reads it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.taps import tap

# The released models started from these initial values.
_dense = functools.partial(
    nn.Dense,
    kernel_init=nn.initializers.xavier_uniform(),
    bias_init=nn.initializers.normal(1e-6),
)

# With this many tokens, the attention weights of one head just fit the cache of a CPU.
_LONG = 512


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that the blocks of one network have in common.

    It is hashable, because a field of a Flax module has to be.

    Attributes:
      heads: attention heads of each block; they divide the width.
      mlp_dim: width of the hidden layer of each MLP.
      gelu: "tanh" for the approximation or "exact".
      gated: whether the MLPs are gated (SwiGLU).
      layer_scale: initial value of a learned factor for each channel of each branch; 0 for no
        factors.
      epsilon: added to the variance in the norms.
      grid: (rows, columns) of patches.
      prefix_tokens: number of tokens before the patches.
      class_token: whether the first of the prefix tokens is a class token.
      dtype: type of the activations; parameters are float32.
    """

    heads: int
    mlp_dim: int
    gelu: str
    gated: bool
    layer_scale: float
    epsilon: float
    grid: tuple[int, int]
    prefix_tokens: int
    class_token: bool
    dtype: Any

    @property
    def positions(self) -> dict[str, Any]:
        """The arguments of `tap` that say where the tokens are in the image."""
        return {
            "grid": self.grid,
            "prefix_tokens": self.prefix_tokens,
            "class_token": self.class_token,
        }

    def norm(self, name: str) -> nn.LayerNorm:
        """Returns a layer norm; it is called inside a compact method."""
        return nn.LayerNorm(
            epsilon=self.epsilon,
            # E[x^2] - E[x]^2, the fast variance, loses digits where the stream has a large mean.
            use_fast_variance=False,
            dtype=self.dtype,
            name=name,
        )


Heads = Float[Array, "*heads tokens dim"]


def _attend(query: Heads, key: Heads, value: Heads) -> tuple[Float[Array, "..."], Heads]:
    """Returns the attention weights, always in float32, and the values that they average."""
    scores = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores)
    return weights, jnp.matmul(weights.astype(value.dtype), value)


def _attend_head_by_head(
    query: Heads, key: Heads, value: Heads
) -> tuple[Float[Array, "..."], Heads]:
    """Does the same in a loop over heads.

    With many tokens the weights of all heads do not fit the cache of a CPU, and the loop is twice
    as fast.
    """
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    weights, x = jax.lax.map(lambda head: _attend(*head), tuple(flat))
    return tuple(y.reshape(*query.shape[:-2], *y.shape[1:]) for y in (weights, x))


class _Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d)) V, heads joined by a projection."""

    config: Config
    block: str  # first part of the names of its taps, such as "block03"

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        config, width = self.config, x.shape[-1]
        project = functools.partial(
            nn.DenseGeneral, dtype=config.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        # The head axis moves before the tokens right away: XLA multiplies batches of matrices two
        # to three times faster on a CPU when no product has to move axes.
        query, key, value = (
            project((config.heads, width // config.heads), name=name)(x).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        query = query / jnp.sqrt(width // config.heads).astype(query.dtype)
        attend = _attend
        if x.shape[1] >= _LONG:  # on other devices a loop over heads would leave most cores idle
            attend = functools.partial(
                jax.lax.platform_dependent, cpu=_attend_head_by_head, default=_attend
            )
        weights, x = attend(query, key, value)
        taps = {"heads": config.heads, **config.positions}
        tap(self, f"{self.block}/attn_weights", weights, role="attention_weights", **taps)
        x = x.transpose(0, 2, 1, 3)
        x = tap(self, f"{self.block}/heads", x, role="heads", **taps)
        return project(width, axis=(-2, -1), name="out")(x)


class _Mlp(nn.Module):
    """Two dense layers with a GELU between them, or with SwiGLU, silu(gate) * value, if gated.

    If gated, the first layer computes both: its first `mlp_dim` outputs are the gate and the others
    the value, as in the files of timm and DINOv2. The tap `hidden` is what the last layer reads.
    """

    config: Config
    block: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        config, width = self.config, x.shape[-1]
        x = _dense(config.mlp_dim * (1 + config.gated), dtype=config.dtype, name="Dense_0")(x)
        if config.gated:
            x = nn.silu(x[..., : config.mlp_dim]) * x[..., config.mlp_dim :]
        else:
            x = nn.gelu(x, approximate=config.gelu == "tanh")
        x = tap(self, f"{self.block}/hidden", x, role="hidden", **config.positions)
        return _dense(width, dtype=config.dtype, name="Dense_1")(x)


class _LayerScale(nn.Module):
    """Multiplies each channel of a branch by a learned number (Touvron et al. 2021, CaiT)."""

    config: Config

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        start = nn.initializers.constant(self.config.layer_scale)
        gamma = self.param("gamma", start, (x.shape[-1],))
        return x * gamma.astype(self.config.dtype)


class Block(nn.Module):
    """One Transformer block. Numbers in parameter names are those of the released checkpoints."""

    config: Config
    block: str  # first part of the names of its taps, such as "block03"
    skips: bool  # whether it has its two skip connections

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Returns the residual stream after the block."""
        config, block, where = self.config, self.block, self.config.positions
        y = config.norm("LayerNorm_0")(x)
        y = tap(self, f"{block}/ln1", y, role="norm", **where)
        y = _Attention(config, block, name="MultiHeadDotProductAttention_1")(y)
        y = _LayerScale(config, name="ls1")(y) if config.layer_scale else y
        skip = f"{block}/in" if self.skips else None
        y = tap(self, f"{block}/attn", y, role="attention", skip=skip, **where)
        x = tap(self, f"{block}/mid", x + y if self.skips else y, role="residual", **where)
        y = config.norm("LayerNorm_2")(x)
        y = tap(self, f"{block}/ln2", y, role="norm", **where)
        y = _Mlp(config, block, name="MlpBlock_3")(y)
        y = _LayerScale(config, name="ls2")(y) if config.layer_scale else y
        skip = f"{block}/mid" if self.skips else None
        y = tap(self, f"{block}/mlp", y, role="mlp", skip=skip, **where)
        return tap(self, f"{block}/out", x + y if self.skips else y, role="residual", **where)
