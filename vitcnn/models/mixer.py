"""MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601), with taps.

A block is `x = x + token_mixing(norm(x)); x = x + channel_mixing(norm(x))`, both MLPs: the first
runs over the tokens, for each channel alone, the second over the channels of each token.
Parameters have the names and shapes of Google's released files, so loading these needs no table of
names.

The token-mixing branch stands where attention stands in a ViT, so its tap is "block00/attn", with
role "token_mixing": every glob and skip that fits a ViT fits a Mixer. There are no attention
weights and no heads. The tap "block00/tokens_hidden", the hidden layer of token mixing, has the
shape [channels, hidden units]: it has no positions.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.layers import common, fields, image_sizes
from vitcnn.layers.residual import Skips
from vitcnn.lookup import check_name
from vitcnn.taps import alias, skip_connection, tap

# Stable under a large mean: E[x^2] - E[x]^2 loses digits where the residual stream has an offset.
_layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)

KIND = "mixer"


@dataclasses.dataclass(frozen=True)
class _Config:
    """Everything that the blocks of one network have in common; see `Mixer` for the fields."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    gelu: str
    grid: tuple[int, int]
    dropout: float
    skips: Skips
    train: bool
    dtype: Any

    @property
    def positions(self) -> dict[str, Any]:
        """The arguments of `tap` that say where the tokens are in the image."""
        return {"grid": self.grid, "prefix_tokens": 0}

    def drop(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Applies dropout, in training; it is called inside a compact method."""
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


class _Mlp(nn.Module):
    """Two dense layers over the last axis with a GELU between them."""

    config: _Config
    hidden: int
    tap_name: str  # of the hidden layer
    has_positions: bool  # whether that tap has the positions of the tokens

    @nn.compact
    def __call__(self, x: Float[Array, "batch rows size"]) -> Float[Array, "batch rows size"]:
        config, size = self.config, x.shape[-1]
        x = nn.Dense(self.hidden, dtype=config.dtype, name="Dense_0")(x)
        x = config.drop(nn.gelu(x, approximate=config.gelu == "tanh"))
        positions = config.positions if self.has_positions else {}
        x = tap(self, self.tap_name, x, role="hidden", **positions)
        return config.drop(nn.Dense(size, dtype=config.dtype, name="Dense_1")(x))


class _Block(nn.Module):
    """One Mixer block."""

    config: _Config
    number: int  # of the block, from 0
    block: str  # first part of the names of its taps, such as "block03"

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        config, block, where = self.config, self.block, self.config.positions
        skips, has_skips = config.skips, config.skips.has(self.number)
        mix_tokens = _Mlp(
            config, config.tokens_mlp_dim, f"{block}/tokens_hidden", False, name="token_mixing"
        )
        mix_channels = _Mlp(
            config, config.channels_mlp_dim, f"{block}/hidden", True, name="channel_mixing"
        )
        y = _layer_norm(dtype=config.dtype, name="LayerNorm_0")(x)
        y = tap(self, f"{block}/ln1", y, role="norm", **where)
        y = mix_tokens(y.swapaxes(1, 2)).swapaxes(1, 2)
        y = skips.drop(self, self.number, y)
        skip = f"{block}/in" if has_skips else None
        y = tap(self, f"{block}/attn", y, role="token_mixing", skip=skip, **where)
        y = skip_connection(self, f"{block}/skip_attn", x, skip) + y if has_skips else y
        x = tap(self, f"{block}/mid", y, role="residual", **where)
        y = _layer_norm(dtype=config.dtype, name="LayerNorm_1")(x)
        y = tap(self, f"{block}/ln2", y, role="norm", **where)
        y = skips.drop(self, self.number, mix_channels(y))
        skip = f"{block}/mid" if has_skips else None
        y = tap(self, f"{block}/mlp", y, role="mlp", skip=skip, **where)
        y = skip_connection(self, f"{block}/skip_mlp", x, skip) + y if has_skips else y
        return tap(self, f"{block}/out", y, role="residual", **where)


class Mixer(nn.Module):
    """MLP-Mixer.

    Attributes:
      num_classes: width of the head; 0 for no head: the output is the pooled features.
      image_size: side of the images in pixels, or (rows, columns). The token-mixing weights have
        the number of patches in their shapes, so a trained network keeps its image size.
      patch: side of a patch in pixels, or (rows, columns); it divides the image size.
      width: size of a token.
      depth: number of blocks.
      tokens_mlp_dim: width of the hidden layer that mixes tokens.
      channels_mlp_dim: width of the hidden layer that mixes channels.
      gelu: "tanh", the approximation that Google's models use, or "exact".
      no_skip: blocks, counted from 0, without their two skip connections.
      dropout: probability with which training sets a number to zero: of the hidden layer and the
        output of each MLP. Taps hold what the network goes on with, so in training they contain the
        zeros.
      stochastic_depth: probability with which training leaves out a branch for an image, so that
        only the skip connection remains; of the last block, see `stochastic_depth_rule`.
      stochastic_depth_rule: "linear": the probability rises from 0 in the first block; "uniform":
        it is the same in all blocks.
      stochastic_depth_rescale: whether the branches that stay are divided by the probability of
        staying. In big_vision's training of Mixers they are not.
      dtype: type of the activations; parameters are float32.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    patch: int | tuple[int, int] = 16
    width: int = 768
    depth: int = 12
    tokens_mlp_dim: int = 384
    channels_mlp_dim: int = 3072
    gelu: str = "tanh"
    no_skip: tuple[int, ...] = ()
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    stochastic_depth_rule: str = "linear"
    stochastic_depth_rescale: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[ArrayLike, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Returns the logits of normalised RGB images.

        Args:
          images: images of `image_size`.
          train: whether dropout and stochastic depth are on; they need the rng "dropout".

        Raises:
          ValueError: a field does not fit the others, or the images are of another size.
        """
        check_name("gelu of mixer", self.gelu, ("tanh", "exact"))
        fields.check_probability("dropout", self.dropout)
        image_sizes.check(images, self.image_size)
        config = _Config(
            tokens_mlp_dim=self.tokens_mlp_dim,
            channels_mlp_dim=self.channels_mlp_dim,
            gelu=self.gelu,
            grid=image_sizes.grid(self.image_size, self.patch),
            dropout=self.dropout,
            skips=Skips(
                self.depth,
                tuple(self.no_skip),
                self.stochastic_depth,
                self.stochastic_depth_rule,
                train,
                rescale=self.stochastic_depth_rescale,
            ),
            train=train,
            dtype=self.dtype,
        )
        x = jnp.asarray(images, self.dtype)
        patch = image_sizes.pair(self.patch)
        x = common.PatchEmbedding(patch, self.width, dtype=self.dtype, name="stem")(x)
        x = tap(self, "embed", x, role="embed", **config.positions)
        previous = "embed"
        for i in range(self.depth):
            block = f"block{i:02d}"
            alias(f"{block}/in", previous)
            x = _Block(config, i, block, name=f"MixerBlock_{i}")(x)
            previous = f"{block}/out"
        x = _layer_norm(dtype=self.dtype, name="pre_head_layer_norm")(x)
        x = tap(self, "norm", x, role="norm", **config.positions)
        x = tap(self, "pooled", x.mean(axis=1), role="pooled")
        return common.classify(self, x)


NETWORK = Mixer

# Tolstikhin et al., table 1.
_SIZES = {
    "S": {"width": 512, "depth": 8, "tokens_mlp_dim": 256, "channels_mlp_dim": 2048},
    "B": {"width": 768, "depth": 12, "tokens_mlp_dim": 384, "channels_mlp_dim": 3072},
    "L": {"width": 1024, "depth": 24, "tokens_mlp_dim": 512, "channels_mlp_dim": 4096},
    "H": {"width": 1280, "depth": 32, "tokens_mlp_dim": 640, "channels_mlp_dim": 5120},
}

VARIANTS = {
    f"{size}/{patch}": {**_SIZES[size], "patch": patch, "image_size": 224}
    for size, patch in (("S", 32), ("S", 16), ("B", 32), ("B", 16), ("L", 32), ("L", 16), ("H", 14))
}
