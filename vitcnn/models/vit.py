"""Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929), with taps.

Blocks are pre-norm: `x = x + attention(norm(x)); x = x + mlp(norm(x))`. Parameters have the names
and shapes of Google's released checkpoints, so loading these needs no table of names. DeiT's
distillation token and DINOv2's layer scale and registers are fields; the parameters that they add
have the names of their releases. The gated MLP of DINOv2's giants is a field too: it adds no
parameter, but makes Dense_0 twice as wide.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.layers import common, fields, image_sizes, positions, transformer
from vitcnn.layers.residual import Skips
from vitcnn.lookup import check_name
from vitcnn.taps import alias, tap

KIND = "vit"
HEADS = ("head", "head_dist")
POSITIONS = "params/Transformer/posembed_input/pos_embedding"
WIDTHS = {"pre_logits": "params/pre_logits/bias"}


class _PositionEmbedding(nn.Module):
    """Adds a vector to each token: a learned one, or the sines and cosines of a patch's place."""

    config: transformer.Config
    kind: str  # "learned" or "sincos2d"

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        if self.kind == "sincos2d":
            table = positions.sincos2d(self.config.grid, x.shape[-1])
            embedding = jnp.pad(table, ((x.shape[1] - len(table), 0), (0, 0)))
        else:
            embedding = self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + embedding.astype(self.config.dtype)


class _Encoder(nn.Module):
    """Position embedding, registers, the blocks, and the final norm."""

    config: transformer.Config
    positions: str
    depth: int
    final_norm: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch positions width"],
        registers: Float[Array, "batch registers width"],
    ) -> Float[Array, "batch tokens width"]:
        config = self.config
        x = config.drop(_PositionEmbedding(config, self.positions, name="posembed_input")(x))
        if count := registers.shape[1]:
            # Registers get no position, so they join here; the patches stay last.
            prefix = config.prefix_tokens - count
            x = jnp.concatenate([x[:, :prefix], registers, x[:, prefix:]], axis=1)
        x = tap(self, "embed", x, role="embed", **config.positions)
        previous = "embed"
        for i in range(self.depth):
            block = f"block{i:02d}"
            alias(f"{block}/in", previous)
            x = transformer.Block(config, i, block, name=f"encoderblock_{i}")(x)
            previous = f"{block}/out"
        if not self.final_norm:
            return x
        x = config.norm("encoder_norm")(x)
        return tap(self, "norm", x, role="norm", **config.positions)


class ViT(nn.Module):
    """Vision Transformer.

    Attributes:
      num_classes: width of the head; 0 for no head: the output is what the head would read.
      image_size: side of the images in pixels, or (rows, columns).
      patch: side of a patch in pixels, or (rows, columns); it divides the image size.
      width: size of a token.
      depth: number of blocks.
      mlp_dim: width of the hidden layer of each block's MLP, which is what its last layer reads.
      heads: attention heads of each block; they divide the width.
      pool: "token": a class token stands before the patches and is read at the end; "gap": there is
        no class token, and the mean of the patches' tokens is read.
      norm_pooled: with "gap", whether the final norm comes after the mean and not before it.
      distilled: whether a distillation token with a head of its own follows the class token; the
        logits are the mean of both heads (DeiT), "pooled" is the mean of both tokens.
      registers: number of tokens without a position, after the class token; nothing reads them at
        the end.
      layer_scale: initial value of a learned factor for each channel of each branch; 0 for no
        factors. The taps `attn` and `mlp` are what is added to the skip, so they contain it.
      gelu: "tanh", the approximation that Google's models use, or "exact".
      gated: whether the hidden layer of each MLP is silu(gate) * value (SwiGLU); `gelu` is then not
        used. One dense layer of twice `mlp_dim` outputs computes both, the gate first.
      pre_logits: width of a hidden tanh layer before the head; 0 for no such layer.
      epsilon: added to the variance in the norms.
      positions: "learned", a vector for each token but the registers; or "sincos2d", big_vision's
        sines and cosines of the row and the column of each patch, which are no parameters: the
        class token then has no position, and the width is a multiple of 4.
      no_skip: blocks, counted from 0, without their two skip connections (Raghu et al., figure 8).
      local_blocks: blocks, counted from 0, in which a patch reads only the patches around it. It
        does not read the class token and the registers there, which know the whole image; they
        read all tokens.
      local_radius: in these blocks, how far the rows and the columns of the patches that are read
        differ from the reader's at most: 1 for 3 x 3 patches, 2 for 5 x 5.
      dropout: probability with which training sets a number to zero: of the embeddings with their
        positions, of the output of attention, and of the hidden layer and the output of each MLP.
        Taps hold what the network goes on with, so in training they contain the zeros.
      attention_dropout: the same for attention weights.
      stochastic_depth: probability with which training leaves out a branch for an image, so that
        only the skip connection remains; of the last block, see `stochastic_depth_rule`. The
        branches that stay are divided by the probability of staying.
      stochastic_depth_rule: "linear": the probability rises from 0 in the first block; "uniform":
        it is the same in all blocks (DeiT-III).
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
    norm_pooled: bool = False
    distilled: bool = False
    registers: int = 0
    layer_scale: float = 0.0
    gelu: str = "tanh"
    gated: bool = False
    pre_logits: int = 0
    epsilon: float = 1e-6
    positions: str = "learned"
    no_skip: tuple[int, ...] = ()
    local_blocks: tuple[int, ...] = ()
    local_radius: int = 1
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    stochastic_depth_rule: str = "linear"
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
        self._check_fields()
        image_sizes.check(images, self.image_size)
        class_token = self.pool == "token"
        positioned = class_token + self.distilled  # tokens before the patches with a position
        config = transformer.Config(
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            gelu=self.gelu,
            gated=self.gated,
            layer_scale=self.layer_scale,
            epsilon=self.epsilon,
            grid=image_sizes.grid(self.image_size, self.patch),
            prefix_tokens=positioned + self.registers,
            class_token=class_token,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            skips=Skips(
                self.depth,
                tuple(self.no_skip),
                self.stochastic_depth,
                self.stochastic_depth_rule,
                train,
            ),
            local_blocks=tuple(self.local_blocks),
            local_radius=self.local_radius,
            train=train,
            dtype=self.dtype,
        )
        # From pixels to tokens.
        x = jnp.asarray(images, self.dtype)
        patch = image_sizes.pair(self.patch)
        x = common.PatchEmbedding(patch, self.width, dtype=self.dtype, name="embedding")(x)
        tokens = [self._tokens(name, x) for name in ("cls", "dist")[:positioned]]
        x = jnp.concatenate([*tokens, x], axis=1)
        # Through the blocks.
        registers = self._tokens("registers", x, self.registers)
        x = _Encoder(config, self.positions, self.depth, not self.norm_pooled, name="Transformer")(
            x, registers
        )
        # From tokens to logits.
        read = x[:, :positioned]
        if self.pool == "gap":
            x = x[:, self.registers :].mean(axis=1)
            x = config.norm("fc_norm")(x) if self.norm_pooled else x
        else:
            x = read[:, 0] if positioned == 1 else read.mean(axis=1)
        pooled, x = x, tap(self, "pooled", x, role="pooled")
        if self.pre_logits:
            x = jnp.tanh(nn.Dense(self.pre_logits, dtype=self.dtype, name="pre_logits")(x))
            x = tap(self, "pre_logits", x, role="pre_logits")
        if not self.num_classes:
            return x
        head = functools.partial(
            nn.Dense, self.num_classes, dtype=self.dtype, kernel_init=nn.initializers.zeros
        )
        if self.distilled:
            if x is not pooled:  # an edit of the mean moves both tokens by as much
                read = read + (x - pooled)[:, None]
            x = (head(name="head")(read[:, 0]) + head(name="head_dist")(read[:, 1])) / 2
        else:
            x = head(name="head")(x)
        return tap(self, "logits", x, role="logits")

    def _tokens(self, name: str, x: Array, count: int = 1) -> Float[Array, "batch count width"]:
        """Returns `count` learned tokens for each image of `x`; all images get the same ones."""
        shape = (x.shape[0], count, self.width)
        if not count:
            return jnp.zeros(shape, self.dtype)
        # Registers have no position: if they started equal, they would stay equal.
        start = nn.initializers.normal(0.02) if name == "registers" else nn.initializers.zeros
        tokens = self.param(name, start, (1, count, self.width))
        return jnp.broadcast_to(tokens.astype(self.dtype), shape)

    def _check_fields(self) -> None:
        """Raises ValueError if the fields do not fit together."""
        check_name("pool of vit", self.pool, ("token", "gap"))
        check_name("gelu of vit", self.gelu, ("tanh", "exact"))
        check_name("positions of vit", self.positions, ("learned", "sincos2d"))
        fields.check_probability("dropout", self.dropout)
        fields.check_probability("attention_dropout", self.attention_dropout)
        fields.check_numbers("local_blocks", self.local_blocks, self.depth, "blocks")
        if self.distilled and (self.pool != "token" or self.pre_logits):
            raise ValueError(
                'distilled=True reads two tokens: it needs pool="token" and pre_logits=0'
            )
        if self.norm_pooled and self.pool != "gap":
            raise ValueError('norm_pooled=True is the norm of a mean over tokens: set pool="gap"')
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.positions == "sincos2d" and self.width % 4:
            raise ValueError(
                f'positions="sincos2d" has four parts: width {self.width} is not a multiple of 4'
            )
        if self.local_radius < 0:
            raise ValueError(f"local_radius is {self.local_radius} patches; it must be at least 0")


NETWORK = ViT

# Fields by the usual name of a size. Dosovitskiy et al., table 1; Ti and S are those of Steiner et
# al. 2021, arXiv 2106.10270; g is DINOv2's giant (Zhai et al. 2021 call another size g).
_SIZES = {
    "Ti": {"width": 192, "depth": 12, "mlp_dim": 768, "heads": 3},
    "S": {"width": 384, "depth": 12, "mlp_dim": 1536, "heads": 6},
    "B": {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12},
    "L": {"width": 1024, "depth": 24, "mlp_dim": 4096, "heads": 16},
    "H": {"width": 1280, "depth": 32, "mlp_dim": 5120, "heads": 16},
    "g": {"width": 1536, "depth": 40, "mlp_dim": 4096, "heads": 24, "gated": True},
}


def _fields(name: str, **others: Any) -> dict[str, Any]:
    """Returns the fields of a size and a patch such as "B/16", and others."""
    size, patch = name.split("/")
    return {**_SIZES[size], "patch": int(patch), "image_size": 224, **others}


# Google's ViT and AugReg, and the other models of the same form.
_VIT = {
    f"{size}/{patch}": _fields(f"{size}/{patch}")
    for size in ("Ti", "S", "B", "L", "H")
    for patch in (8, 14, 16, 32)
}

# Touvron et al. 2020, arXiv 2012.12877.
_DEIT = {
    f"DeiT-{name}{'-distilled' * distilled}": _fields(name, gelu="exact", distilled=distilled)
    for name in ("Ti/16", "S/16", "B/16")
    for distilled in (False, True)
}

# Caron et al. 2021, arXiv 2104.14294. There is no head.
_DINO = {
    f"DINO-{name}": _fields(name, gelu="exact", num_classes=0)
    for name in ("S/16", "S/8", "B/16", "B/8")
}

# Oquab et al. 2023, arXiv 2304.07193; with registers: Darcet et al. 2023, arXiv 2309.16588.
_DINOV2 = {
    f"DINOv2-{name}{'-registers' * bool(registers)}": _fields(
        name, gelu="exact", num_classes=0, image_size=518, layer_scale=1e-5, registers=registers
    )
    for name in ("S/14", "B/14", "L/14", "g/14")
    for registers in (0, 4)
}

# Small enough to train on a CPU: 64 patches, half a million parameters.
_FOR_CIFAR = {"patch": 4, "image_size": 32, "num_classes": 10}
_SMALL = {
    "mini/4": {"width": 96, "depth": 6, "mlp_dim": 192, "heads": 3, **_FOR_CIFAR},
    "cifar/4": {
        **{"width": 128, "depth": 4, "mlp_dim": 256, "heads": 4, "gelu": "exact"},
        **_FOR_CIFAR,
    },
}

VARIANTS = _VIT | _DEIT | _DINO | _DINOV2 | _SMALL
