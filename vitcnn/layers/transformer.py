"""A block of a Vision Transformer, with taps.

Every block, and every layer inside it, gets the same `Config`. A new option of the network is a new
field of `Config` and a line in the layer that reads it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vitcnn.layers.residual import Skips
from vitcnn.taps import skip_connection, tap

# The released models started from these initial values.
_dense = functools.partial(
    nn.Dense,
    kernel_init=nn.initializers.xavier_uniform(),
    bias_init=nn.initializers.normal(1e-6),
)

# Activations of an MLP. "tanh" approximates the exact GELU; "quick" is another approximation,
# x * sigmoid(1.702 x), with which OpenAI trained CLIP (Hendrycks & Gimpel 2016, arXiv 1606.08415).
GELUS = ("tanh", "exact", "quick")

# With this many tokens, the attention weights of one head just fit the cache of a CPU.
_LONG = 512


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that the blocks of one network have in common.

    It is hashable, because a field of a Flax module has to be.

    Attributes:
      heads: attention heads of each block; they divide the width.
      mlp_dim: width of the hidden layer of each MLP.
      gelu: one of `GELUS`.
      gated: whether the MLPs are gated (SwiGLU).
      qkv_bias: whether the projections to queries, keys and values have biases.
      layer_scale: initial value of a learned factor for each channel of each branch; 0 for no
        factors.
      norm_after: whether the norms of a block come after its branches and not before them.
      inner_norms: whether there are norms inside the branches too: of the joined heads, and of the
        hidden layer of each MLP.
      epsilon: added to the variance in the norms.
      relative_mlp_dim: hidden width of the MLP that makes the biases of relative positions; 0 where
        no block has an MLP of its own.
      grid: (rows, columns) of patches.
      prefix_tokens: number of tokens before the patches.
      class_token: whether the first of the prefix tokens is a class token.
      dropout: probability that training sets a number to zero: of the embeddings, and of the
        hidden layer and the output of the branches.
      attention_dropout: the same for attention weights.
      skips: which blocks have skips, and which branches training leaves out.
      local_blocks: blocks, counted from 0, in which patches read only the patches around them.
      local_radius: how far these are at most, see `local_attention`.
      train: whether the network trains, and numbers are dropped.
      dtype: type of the activations; parameters are float32.
    """

    heads: int
    mlp_dim: int
    gelu: str
    gated: bool
    qkv_bias: bool
    layer_scale: float
    norm_after: bool
    inner_norms: bool
    epsilon: float
    relative_mlp_dim: int
    grid: tuple[int, int]
    prefix_tokens: int
    class_token: bool
    dropout: float
    attention_dropout: float
    skips: Skips
    local_blocks: tuple[int, ...]
    local_radius: int
    train: bool
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

    def drop(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Applies dropout, in training; it is called inside a compact method."""
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


def local_attention(
    grid: tuple[int, int], prefix_tokens: int, radius: int
) -> Bool[np.ndarray, "queries keys"]:
    """Returns which tokens each token reads in a block of local attention.

    A patch reads the patches whose rows and columns differ from its own by at most `radius` (the
    Chebyshev distance), as a convolution of side 2 radius + 1 does. It does not read the prefix
    tokens, which would carry to it what they have read elsewhere. Prefix tokens read all tokens.
    """
    rows_and_columns = np.indices(grid).reshape(2, -1)
    distance = np.abs(rows_and_columns[:, :, None] - rows_and_columns[:, None]).max(axis=0)
    reads = np.ones((prefix_tokens + len(distance),) * 2, bool)
    reads[prefix_tokens:, :prefix_tokens] = False
    reads[prefix_tokens:, prefix_tokens:] = distance <= radius
    return reads


Heads = Float[Array, "*heads tokens dim"]
Weights = Float[Array, "*heads tokens tokens"]
Bias = Float[Array, "heads tokens tokens"]


def _keep(weights: Weights) -> Weights:
    return weights


def _attend(
    query: Heads,
    key: Heads,
    value: Heads,
    bias: Float[Array, "... tokens tokens"] | None = None,
    reads: Bool[np.ndarray, "tokens tokens"] | None = None,
    drop: Callable[[Weights], Weights] = _keep,
) -> tuple[Weights, Heads]:
    """Returns the attention weights, always in float32, and the values that they average.

    Args:
      query, key, value: what each head makes of the tokens.
      bias: added to the scores of each query (rows) and key (columns); None for none.
      reads: which tokens (columns) each token (row) reads; None if each reads all.
      drop: applied to the weights.
    """
    scores = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    scores = scores if bias is None else scores + bias
    scores = scores if reads is None else jnp.where(reads, scores, -jnp.inf)
    weights = drop(jax.nn.softmax(scores))
    return weights, jnp.matmul(weights.astype(value.dtype), value)


def _attend_head_by_head(
    query: Heads,
    key: Heads,
    value: Heads,
    bias: Bias | None = None,
    reads: Bool[np.ndarray, "tokens tokens"] | None = None,
) -> tuple[Weights, Heads]:
    """Does the same in a loop over heads.

    With many tokens the weights of all heads do not fit the cache of a CPU, and the loop is twice
    as fast.
    """
    flat = [x.reshape(-1, *x.shape[-2:]) for x in (query, key, value)]
    if bias is None:
        weights, x = jax.lax.map(lambda head: _attend(*head, reads=reads), tuple(flat))
    else:  # the same for all images, so it is not repeated for each
        heads = jnp.arange(len(flat[0])) % len(bias)
        run = lambda head: _attend(*head[:3], bias[head[3]], reads)  # noqa: E731
        weights, x = jax.lax.map(run, (*flat, heads))
    return tuple(y.reshape(*query.shape[:-2], *y.shape[1:]) for y in (weights, x))


class _Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d) + B) V, heads joined by a projection.

    B is the bias of relative positions; most networks have none.
    """

    config: Config
    block: str  # first part of the names of its taps, such as "block03"
    local: bool  # whether patches read only the patches around them

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], bias: Bias | None
    ) -> Float[Array, "batch tokens width"]:
        config, width = self.config, x.shape[-1]
        project = functools.partial(
            nn.DenseGeneral, dtype=config.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        # The head axis moves before the tokens right away: XLA multiplies batches of matrices two
        # to three times faster on a CPU when no product has to move axes.
        query, key, value = (
            project((config.heads, width // config.heads), use_bias=config.qkv_bias, name=name)(
                x
            ).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        query = query / jnp.sqrt(width // config.heads).astype(query.dtype)
        if config.relative_mlp_dim:
            bias = RelativePositionBias(config, config.relative_mlp_dim, name="rel_pos")()
        weights, x = self._attend(query, key, value, bias)
        taps = {"heads": config.heads, **config.positions}
        name, role = f"{self.block}/attn_weights", "attention_weights"
        if (edited := tap(self, name, weights, role=role, **taps)) is not weights:
            x = jnp.matmul(edited.astype(value.dtype), value)
        x = x.transpose(0, 2, 1, 3)
        x = tap(self, f"{self.block}/heads", x, role="heads", **taps)
        if config.inner_norms:
            x = config.norm("inner_norm")(x.reshape(*x.shape[:2], width)).reshape(x.shape)
        return config.drop(project(width, axis=(-2, -1), name="out")(x))

    def _attend(
        self, query: Heads, key: Heads, value: Heads, bias: Bias | None
    ) -> tuple[Weights, Heads]:
        """Chooses how to attend: within a radius or not, with dropout or not, in a loop or not."""
        config = self.config
        attend, loop = _attend, _attend_head_by_head
        if self.local:
            reads = local_attention(config.grid, config.prefix_tokens, config.local_radius)
            attend, loop = (functools.partial(f, reads=reads) for f in (attend, loop))
        if config.train and config.attention_dropout:
            drop = nn.Dropout(config.attention_dropout, deterministic=False)
            return attend(query, key, value, bias, drop=drop)
        if query.shape[-2] < _LONG:
            return attend(query, key, value, bias)
        # On other devices a loop over heads would leave most cores idle.
        return jax.lax.platform_dependent(query, key, value, bias, cpu=loop, default=attend)


class RelativePositionBias(nn.Module):
    """Adds to attention scores what an MLP makes of the way from the key to the query.

    The MLP reads sign(d) log(1 + |d|) of the distance d in rows and in columns, and returns one
    number for each head (timm's `RelPosMlp`, after Swin V2, Liu et al. 2021, arXiv 2111.09883). So
    the same weights fit any grid. Prefix tokens have no place: their biases are zero. timm drops
    hidden numbers of the MLP in training, and we do not.
    """

    config: Config
    mlp_dim: int

    @nn.compact
    def __call__(self) -> Float[Array, "heads tokens tokens"]:
        """Returns the bias of each head for each query (rows) and key (columns), in float32."""
        (rows, columns), prefix = self.config.grid, self.config.prefix_tokens
        offsets = np.indices((2 * rows - 1, 2 * columns - 1)).transpose(1, 2, 0)
        offsets = offsets - np.array([rows - 1, columns - 1])
        ways = np.float32(np.sign(offsets) * np.log1p(np.abs(offsets)))
        x = nn.relu(nn.Dense(self.mlp_dim, name="fc1")(jnp.asarray(ways)))
        x = nn.Dense(self.config.heads, name="fc2")(x)  # one row for each way, not for each pair
        places = np.indices(self.config.grid).reshape(2, -1)
        down, right = places[:, :, None] - places[:, None]
        bias = x[down + rows - 1, right + columns - 1].transpose(2, 0, 1)
        return jnp.pad(bias, ((0, 0), (prefix, 0), (prefix, 0)))


def activate(x: Float[Array, "..."], gelu: str) -> Float[Array, "..."]:
    """Applies one of `GELUS`."""
    return x * nn.sigmoid(1.702 * x) if gelu == "quick" else nn.gelu(x, approximate=gelu == "tanh")


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
            x = activate(x, config.gelu)
        x = config.drop(x)
        x = config.norm("inner_norm")(x) if config.inner_norms else x
        x = tap(self, f"{self.block}/hidden", x, role="hidden", **config.positions)
        return config.drop(_dense(width, dtype=config.dtype, name="Dense_1")(x))


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
    number: int  # of the block, from 0
    block: str  # first part of the names of its taps, such as "block03"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], bias: Bias | None = None
    ) -> Float[Array, "batch tokens width"]:
        """Returns the residual stream after the block.

        Args:
          x: the stream before it.
          bias: what all blocks add to their attention scores; None for nothing.
        """
        config, block, where = self.config, self.block, self.config.positions
        skips, has_skips = config.skips, config.skips.has(self.number)
        local = self.number in config.local_blocks
        y = x
        if not config.norm_after:
            y = tap(self, f"{block}/ln1", config.norm("LayerNorm_0")(x), role="norm", **where)
        y = _Attention(config, block, local, name="MultiHeadDotProductAttention_1")(y, bias)
        y = config.norm("LayerNorm_0")(y) if config.norm_after else y
        y = _LayerScale(config, name="ls1")(y) if config.layer_scale else y
        y = skips.drop(self, self.number, y)
        skip = f"{block}/in" if has_skips else None
        y = tap(self, f"{block}/attn", y, role="attention", skip=skip, **where)
        y = skip_connection(self, f"{block}/skip_attn", x, skip) + y if has_skips else y
        x = tap(self, f"{block}/mid", y, role="residual", **where)
        y = x
        if not config.norm_after:
            y = tap(self, f"{block}/ln2", config.norm("LayerNorm_2")(x), role="norm", **where)
        y = _Mlp(config, block, name="MlpBlock_3")(y)
        y = config.norm("LayerNorm_2")(y) if config.norm_after else y
        y = _LayerScale(config, name="ls2")(y) if config.layer_scale else y
        y = skips.drop(self, self.number, y)
        skip = f"{block}/mid" if has_skips else None
        y = tap(self, f"{block}/mlp", y, role="mlp", skip=skip, **where)
        y = skip_connection(self, f"{block}/skip_mlp", x, skip) + y if has_skips else y
        return tap(self, f"{block}/out", y, role="residual", **where)
