"""Pooling by attention: one learned query reads all patches."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.layers import transformer


class AttentionPool(nn.Module):
    """The MAP head of big_vision (Zhai et al. 2021, arXiv 2106.04560; Lee et al. 2018).

    A learned query, the probe, attends to the patches with as many heads as a block has; an MLP
    with a norm and a skip connection follows. Parameters have big_vision's names.
    """

    config: transformer.Config

    @nn.compact
    def __call__(self, x: Float[Array, "batch patches width"]) -> Float[Array, "batch width"]:
        """Returns one vector for each image.

        Args:
          x: the patches, without class token and registers.
        """
        config, (n, _, width) = self.config, x.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width))
        probe = jnp.broadcast_to(probe.astype(config.dtype), (n, 1, width))
        x = _Attention(config, name="MultiHeadDotProductAttention_0")(probe, x)
        y = config.norm("LayerNorm_0")(x)
        return (x + _Mlp(config, name="MlpBlock_0")(y))[:, 0]


class _Attention(nn.Module):
    """Attention of some queries to other tokens."""

    config: transformer.Config

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch queries width"],
        x: Float[Array, "batch tokens width"],
    ) -> Float[Array, "batch queries width"]:
        heads, width = self.config.heads, x.shape[-1]
        project = functools.partial(
            nn.DenseGeneral, dtype=self.config.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        query, key, value = (
            project((heads, width // heads), name=name)(y).transpose(0, 2, 1, 3)
            for name, y in (("query", queries), ("key", x), ("value", x))
        )
        query = query / jnp.sqrt(width // heads).astype(query.dtype)
        scores = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
        x = jnp.matmul(jax.nn.softmax(scores).astype(value.dtype), value).transpose(0, 2, 1, 3)
        return project(width, axis=(-2, -1), name="out")(x)


class _Mlp(nn.Module):
    """Two dense layers with the activation of the network between them."""

    config: transformer.Config

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        config, width = self.config, x.shape[-1]
        x = nn.Dense(config.mlp_dim, dtype=config.dtype, name="Dense_0")(x)
        x = transformer.activate(x, config.gelu)
        return nn.Dense(width, dtype=config.dtype, name="Dense_1")(x)
