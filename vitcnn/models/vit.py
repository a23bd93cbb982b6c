"""Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929), with taps.

Blocks are pre-norm: `x = x + attention(norm(x)); x = x + mlp(norm(x))`. Parameters have the names
and shapes of Google's released checkpoints, so these need no rename table. DeiT's distillation
token, DINOv2's layer scale and registers are fields; what they add has the names of their releases.
The gated MLP of DINOv2's giants is a field too; it adds no names, but its Dense_0 is twice as wide.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.layers import common, transformer
from vitcnn.layers import images as image_sizes
from vitcnn.lookup import check_name
from vitcnn.taps import alias, tap

KIND = "vit"
HEADS = ("head", "head_dist")
POSITIONS = "params/Transformer/posembed_input/pos_embedding"
WIDTHS = {"pre_logits": "params/pre_logits/bias"}


class _PositionEmbedding(nn.Module):
    """Adds a learned vector to each token."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        embedding = self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + embedding.astype(self.dtype)


class _Encoder(nn.Module):
    """Position embedding, registers, the blocks, and the final norm."""

    depth: int
    heads: int
    mlp_dim: int
    gelu: str
    gated: bool
    no_skip: tuple[int, ...]
    layer_scale: float | None
    final_norm: bool
    where: dict[str, Any]
    norm: Any
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch positions width"],
        registers: Float[Array, "batch registers width"],
    ) -> Float[Array, "batch tokens width"]:
        x = _PositionEmbedding(self.dtype, name="posembed_input")(x)
        if count := registers.shape[1]:  # they have no position; the patches stay last
            before = self.where["prefix_tokens"] - count
            x = jnp.concatenate([x[:, :before], registers, x[:, before:]], axis=1)
        x = tap(self, "embed", x, role="embed", **self.where)
        before = "embed"
        for i in range(self.depth):
            block = f"block{i:02d}"
            alias(f"{block}/in", before)
            x = transformer.Block(
                self.heads,
                self.mlp_dim,
                self.gelu,
                self.gated,
                i not in self.no_skip,
                self.layer_scale,
                block,
                self.where,
                self.norm,
                dtype=self.dtype,
                name=f"encoderblock_{i}",
            )(x)
            before = f"{block}/out"
        if not self.final_norm:
            return x
        x = self.norm(name="encoder_norm")(x)
        return tap(self, "norm", x, role="norm", **self.where)


class Module(nn.Module):
    """Vision Transformer.

    Attributes:
      num_classes: width of the head; 0 for no head, then the output is what the head would read.
      image_size: side of the images in pixels, or (rows, columns).
      patch: side of a patch in pixels, or (rows, columns); it divides the image size.
      width: size of a token.
      depth: number of blocks.
      mlp_dim: width of the hidden layer of each block's MLP, which is what its last layer reads.
      heads: attention heads of each block; they divide the width.
      pool: "token": a class token is put before the patches and read at the end; "gap": there is no
        class token, the patches' tokens of the final norm are averaged.
      norm_pooled: with "gap": tokens are averaged first, and the final norm is that of their mean.
      distilled: a distillation token after the class token, with a head of its own; the logits are
        the mean of both heads (DeiT), "pooled" is the mean of both tokens.
      registers: tokens without a position, after the class token, that nothing reads at the end.
      layer_scale: start of a learned factor of each channel of each branch; None for no factors.
        The taps `attn` and `mlp` are what is added to the skip, so they contain it.
      gelu: "tanh", the approximation that Google's models use, or "exact".
      gated: the hidden layer of each MLP is silu(gate) * value (SwiGLU), and `gelu` is not used.
        One dense layer of twice `mlp_dim` outputs gives both, the gate first.
      pre_logits: width of a hidden tanh layer before the head, None for no such layer.
      epsilon: added to the variance in the norms.
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
    norm_pooled: bool = False
    distilled: bool = False
    registers: int = 0
    layer_scale: float | None = None
    gelu: str = "tanh"
    gated: bool = False
    pre_logits: int | None = None
    epsilon: float = 1e-6
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
        image_sizes.check(images, self.image_size)
        positioned = int(self.pool == "token") + self.distilled  # class and distillation token
        where = {"grid": (rows, columns), "prefix_tokens": positioned + self.registers}
        where["class_token"] = self.pool == "token"
        # Stable under a large mean: E[x^2] - E[x]^2 loses digits where the stream has an offset.
        norm = functools.partial(
            nn.LayerNorm, epsilon=self.epsilon, use_fast_variance=False, dtype=self.dtype
        )
        x = jnp.asarray(images, self.dtype)
        x = common.PatchEmbedding(
            image_sizes.pair(self.patch), self.width, dtype=self.dtype, name="embedding"
        )(x)
        tokens = [self._tokens(name, x) for name in ("cls", "dist")[:positioned]]
        x = jnp.concatenate([*tokens, x], axis=1)
        x = _Encoder(
            self.depth,
            self.heads,
            self.mlp_dim,
            self.gelu,
            self.gated,
            tuple(self.no_skip),
            self.layer_scale,
            not self.norm_pooled,
            where,
            norm,
            dtype=self.dtype,
            name="Transformer",
        )(x, self._tokens("registers", x, self.registers))
        read = x[:, :positioned]
        if self.pool == "gap":
            x = x[:, self.registers :].mean(axis=1)
            x = norm(name="fc_norm")(x) if self.norm_pooled else x
        else:
            x = read[:, 0] if positioned == 1 else read.mean(axis=1)
        x = tap(self, "pooled", x, role="pooled")
        if self.pre_logits is not None:
            x = jnp.tanh(nn.Dense(self.pre_logits, dtype=self.dtype, name="pre_logits")(x))
            x = tap(self, "pre_logits", x, role="pre_logits")
        if not self.num_classes:
            return x
        head = functools.partial(
            nn.Dense, self.num_classes, dtype=self.dtype, kernel_init=nn.initializers.zeros
        )
        if self.distilled:
            x = (head(name="head")(read[:, 0]) + head(name="head_dist")(read[:, 1])) / 2
        else:
            x = head(name="head")(x)
        return tap(self, "logits", x, role="logits")

    def _tokens(self, name: str, x: Array, count: int = 1) -> Float[Array, "batch count width"]:
        """Returns learned tokens, the same for every image."""
        shape = (x.shape[0], count, self.width)
        if not count:
            return jnp.zeros(shape, self.dtype)
        # Registers have no position: alike at the start, they would stay alike.
        start = nn.initializers.normal(0.02) if name == "registers" else nn.initializers.zeros
        tokens = self.param(name, start, (1, count, self.width))
        return jnp.broadcast_to(tokens.astype(self.dtype), shape)

    def _check(self) -> tuple[int, int]:
        """Returns the grid of patches; raises ValueError if the fields do not fit together."""
        check_name("pool of vit", self.pool, ("token", "gap"))
        check_name("gelu of vit", self.gelu, ("tanh", "exact"))
        if self.distilled and (self.pool != "token" or self.pre_logits is not None):
            raise ValueError('distilled needs pool "token" and no pre_logits: both tokens are read')
        if self.norm_pooled and self.pool != "gap":
            raise ValueError('norm_pooled is the norm of a mean over tokens; set pool to "gap"')
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if any(not 0 <= i < self.depth for i in self.no_skip):
            raise ValueError(
                f"no_skip is {tuple(self.no_skip)}, but blocks are 0 to {self.depth - 1}"
            )
        return image_sizes.grid(self.image_size, self.patch)


_SIZES = {  # Dosovitskiy et al., table 1; Ti and S as in Steiner et al. 2021, arXiv 2106.10270
    "Ti": {"width": 192, "depth": 12, "mlp_dim": 768, "heads": 3},
    "S": {"width": 384, "depth": 12, "mlp_dim": 1536, "heads": 6},
    "B": {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12},
    "L": {"width": 1024, "depth": 24, "mlp_dim": 4096, "heads": 16},
    "H": {"width": 1280, "depth": 32, "mlp_dim": 5120, "heads": 16},
}

# DINOv2's, whose MLPs are gated; Zhai et al. 2021 call another size g.
_GIANT = {"g": {"width": 1536, "depth": 40, "mlp_dim": 4096, "heads": 24, "gated": True}}

_SMALL = {"patch": 4, "image_size": 32, "num_classes": 10}


def _named(name: str, **fields: Any) -> dict[str, Any]:
    size, patch = name.split("/")
    return {**(_SIZES | _GIANT)[size], "patch": int(patch), "image_size": 224, **fields}


VARIANTS = (
    {f"{size}/{patch}": _named(f"{size}/{patch}") for size in _SIZES for patch in (8, 14, 16, 32)}
    | {  # Touvron et al. 2020, arXiv 2012.12877
        f"DeiT-{name}{'-distilled' * distilled}": _named(name, gelu="exact", distilled=distilled)
        for name in ("Ti/16", "S/16", "B/16")
        for distilled in (False, True)
    }
    | {  # Caron et al. 2021, arXiv 2104.14294: no head
        f"DINO-{name}": _named(name, gelu="exact", num_classes=0)
        for name in ("S/16", "S/8", "B/16", "B/8")
    }
    | {  # Oquab et al. 2023, arXiv 2304.07193; registers: Darcet et al. 2023, arXiv 2309.16588
        f"DINOv2-{name}{'-registers' * bool(registers)}": _named(
            name,
            gelu="exact",
            num_classes=0,
            image_size=518,
            layer_scale=1e-5,
            registers=registers,
        )
        for name in ("S/14", "B/14", "L/14", "g/14")
        for registers in (0, 4)
    }
    | {
        # Small enough to train on a processor: 64 patches, half a million parameters.
        "mini/4": {"width": 96, "depth": 6, "mlp_dim": 192, "heads": 3, **_SMALL},
        "cifar/4": {
            **{"width": 128, "depth": 4, "mlp_dim": 256, "heads": 4, "gelu": "exact"},
            **_SMALL,
        },
    }
)
