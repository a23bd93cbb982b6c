"""Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929), with taps.

Blocks are pre-norm: `x = x + attention(norm(x)); x = x + mlp(norm(x))`. Parameters have the names
and shapes of Google's released checkpoints, so loading these needs no table of names. DeiT's
distillation token, DINOv2's layer scale and registers, SigLIP's pooling by attention, CLIP's norm
before the blocks and its projection, and the ResNet of hybrids are fields; the parameters that they
add have the names of their releases where these have such names. The gated MLP of DINOv2's giants
is a field too: it adds no parameter, but makes Dense_0 twice as wide.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vitcnn.layers import (
    attention_pool,
    common,
    fields,
    image_sizes,
    positions,
    resnet_stem,
    transformer,
)
from vitcnn.layers.residual import Skips
from vitcnn.lookup import check_name
from vitcnn.taps import alias, tap

KIND = "vit"
HEADS = ("head", "head_dist")
POSITIONS = "params/Transformer/posembed_input/pos_embedding"
WIDTHS = {"pre_logits": "params/pre_logits/bias", "projection": "params/projection/kernel"}

STEMS = ("none", "resnet")
POOLS = ("token", "gap", "clsgap", "map")
# What these are called elsewhere.
_POOL_WORDS = {
    **{word: "gap" for word in ("mean", "avg", "average", "averagepool", "avgpool", "globalpool")},
    **{word: "token" for word in ("cls", "class", "classtoken", "clstoken", "first")},
    **{word: "map" for word in ("attention", "attnpool", "attentionpool", "latent", "probe")},
}
_GELU_WORDS = {"gelu": "exact", "erf": "exact", "gelunew": "tanh", "approximate": "tanh"}
PLACES = ("learned", "sincos2d", "relative", "relative_shared")


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
    """Position embedding, registers, the blocks, and the norms before and after them."""

    config: transformer.Config
    positions: str
    depth: int
    embed_norm: bool
    final_norm: bool
    shared_mlp_dim: int  # of the bias of relative positions that all blocks share; 0 for none

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch positions width"],
        registers: Float[Array, "batch registers width"],
    ) -> Float[Array, "batch tokens width"]:
        config = self.config
        if not self.positions.startswith("relative"):
            x = _PositionEmbedding(config, self.positions, name="posembed_input")(x)
        x = config.drop(x)
        if count := registers.shape[1]:
            # Registers get no position, so they join here; the patches stay last.
            prefix = config.prefix_tokens - count
            x = jnp.concatenate([x[:, :prefix], registers, x[:, prefix:]], axis=1)
        x = config.norm("pre_norm")(x) if self.embed_norm else x
        x = tap(self, "embed", x, role="embed", **config.positions)
        bias = None
        if self.shared_mlp_dim:
            bias = transformer.RelativePositionBias(config, self.shared_mlp_dim, name="rel_pos")()
        previous = "embed"
        for i in range(self.depth):
            block = f"block{i:02d}"
            alias(f"{block}/in", previous)
            x = transformer.Block(config, i, block, name=f"encoderblock_{i}")(x, bias)
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
      stem: "none": patches are cut from pixels; "resnet": from the map of a ResNet of the paper's
        form (a hybrid), whose taps come first. The patch is a multiple of what a position of the
        map covers: 4 pixels, and twice as much for each stage but the first.
      stem_units: number of units of each stage of this ResNet; () for its root alone.
      stem_form: "google" or "timm", whose epsilons differ; see `ResNetStem`.
      width: size of a token.
      depth: number of blocks.
      mlp_dim: width of the hidden layer of each block's MLP, which is what its last layer reads.
      heads: attention heads of each block; they divide the width.
      pool: "token": a class token stands before the patches and is read at the end; "gap": there is
        no class token, and the mean of the patches' tokens is read; "clsgap": the mean is read
        although there is a class token (EVA-L); "map": there is no class token, and a learned query
        reads the patches by attention (SigLIP).
      final_norm: whether a norm follows the blocks.
      norm_pooled: with a mean of tokens, whether the final norm comes after the mean and not before
        it.
      embed_norm: whether a norm comes before the blocks, so that the tap "embed" holds normalised
        tokens; patches are then embedded without a bias (CLIP).
      distilled: whether a distillation token with a head of its own follows the class token; the
        logits are the mean of both heads (DeiT), "pooled" is the mean of both tokens.
      registers: number of tokens without a position, after the class token; nothing reads them at
        the end.
      layer_scale: initial value of a learned factor for each channel of each branch; 0 for no
        factors. The taps `attn` and `mlp` are what is added to the skip, so they contain it.
      norm_after: whether the norms of a block come after its branches and not before them, x +
        norm(attention(x)). The taps `attn` and `mlp` contain them; there is no `ln1` and no `ln2`.
      inner_norms: whether there are norms inside the branches too: of the joined heads, and of the
        hidden layer of each MLP (BEiT-3).
      qkv_bias: whether the projections to queries, keys and values have biases.
      gelu: "tanh", the approximation that Google's models use; "exact"; or "quick", x sigmoid(1.702
        x), with which OpenAI trained CLIP.
      gated: whether the hidden layer of each MLP is silu(gate) * value (SwiGLU); `gelu` is then not
        used. One dense layer of twice `mlp_dim` outputs computes both, the gate first.
      pre_logits: width of a hidden tanh layer before the head; 0 for no such layer.
      projection: width of a linear layer without a bias after pooling, which CLIP compares with
        texts; 0 for no such layer. It has a tap of its own, "projection", and a head reads it.
      epsilon: added to the variance in the norms.
      positions: "learned", a vector for each token but the registers; "sincos2d", big_vision's
        sines and cosines of the row and the column of each patch, which are no parameters: the
        class token then has no position, and the width is a multiple of 4; "relative", no vectors
        but biases of the attention scores, which in each block a small MLP makes of the way between
        two patches; or "relative_shared", the same with one MLP for all blocks.
      relative_mlp_dim: hidden width of this MLP.
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
    stem: str = "none"
    stem_units: tuple[int, ...] = (3, 4, 9)
    stem_form: str = "google"
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    heads: int = 12
    pool: str = "token"
    final_norm: bool = True
    norm_pooled: bool = False
    embed_norm: bool = False
    distilled: bool = False
    registers: int = 0
    layer_scale: float = 0.0
    norm_after: bool = False
    inner_norms: bool = False
    qkv_bias: bool = True
    gelu: str = "tanh"
    gated: bool = False
    pre_logits: int = 0
    projection: int = 0
    epsilon: float = 1e-6
    positions: str = "learned"
    relative_mlp_dim: int = 128
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
        class_token = self.pool in ("token", "clsgap")
        positioned = class_token + self.distilled  # tokens before the patches with a position
        config = transformer.Config(
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            gelu=self.gelu,
            gated=self.gated,
            qkv_bias=self.qkv_bias,
            layer_scale=self.layer_scale,
            norm_after=self.norm_after,
            inner_norms=self.inner_norms,
            epsilon=self.epsilon,
            relative_mlp_dim=self.relative_mlp_dim * (self.positions == "relative"),
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
        if self.stem == "resnet":
            stem = resnet_stem.ResNetStem(tuple(self.stem_units), self.stem_form, train, self.dtype)
            x = stem(self, x)
            patch = tuple(side // stem.reduction for side in self._check_patch(stem.reduction))
        embed = functools.partial(common.PatchEmbedding, use_bias=not self.embed_norm)
        x = embed(patch, self.width, dtype=self.dtype, name="embedding")(x)
        tokens = [self._tokens(name, x) for name in ("cls", "dist")[:positioned]]
        x = jnp.concatenate([*tokens, x], axis=1)
        # Through the blocks.
        registers = self._tokens("registers", x, self.registers)
        x = _Encoder(
            config,
            self.positions,
            self.depth,
            self.embed_norm,
            self.final_norm and not self.norm_pooled,
            self.relative_mlp_dim * (self.positions == "relative_shared"),
            name="Transformer",
        )(x, registers)
        # From tokens to logits.
        read = x[:, :positioned]
        if self.pool == "map":
            patches = x[:, config.prefix_tokens :]
            x = attention_pool.AttentionPool(config, name="MAPHead_0")(patches)
        elif self.pool != "token":
            x = x[:, config.prefix_tokens :].mean(axis=1)
            x = config.norm("fc_norm")(x) if self.norm_pooled else x
        else:
            x = read[:, 0] if positioned == 1 else read.mean(axis=1)
        pooled, x = x, tap(self, "pooled", x, role="pooled")
        if self.projection:
            x = nn.Dense(self.projection, use_bias=False, dtype=self.dtype, name="projection")(x)
            x = tap(self, "projection", x, role="pre_logits")
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

    def _check_patch(self, reduction: int) -> tuple[int, int]:
        """Returns the patch, or raises a ValueError if positions of a map do not fill it."""
        patch = image_sizes.pair(self.patch)
        if any(side % reduction for side in patch):
            raise ValueError(
                f"patch {self.patch} is not a multiple of {reduction}, the pixels that a position "
                f"of the ResNet's map covers with stem_units={tuple(self.stem_units)}"
            )
        return patch

    def _check_fields(self) -> None:
        """Raises ValueError if the fields do not fit together."""
        check_name("stem of vit", self.stem, STEMS)
        check_name("stem_form of vit", self.stem_form, resnet_stem.FORMS)
        check_name("pool of vit", self.pool, POOLS, _POOL_WORDS)
        check_name("gelu of vit", self.gelu, transformer.GELUS, _GELU_WORDS)
        check_name("positions of vit", self.positions, PLACES)
        fields.check_probability("dropout", self.dropout)
        fields.check_probability("attention_dropout", self.attention_dropout)
        fields.check_numbers("local_blocks", self.local_blocks, self.depth, "blocks")
        if self.distilled and (self.pool != "token" or self.pre_logits or self.projection):
            raise ValueError(
                'distilled=True reads two tokens: it needs pool="token", pre_logits=0 and '
                "projection=0"
            )
        if self.norm_pooled and (self.pool not in ("gap", "clsgap") or not self.final_norm):
            raise ValueError(
                'norm_pooled=True is the norm of a mean over tokens: set pool="gap" or "clsgap", '
                "and final_norm=True"
            )
        if self.projection and self.pre_logits:
            raise ValueError("projection and pre_logits both come before the head: set one to 0")
        if self.positions.startswith("relative") and self.relative_mlp_dim < 1:
            raise ValueError(f"relative_mlp_dim is {self.relative_mlp_dim}; it must be at least 1")
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
# al. 2021, arXiv 2106.10270; g is DINOv2's giant. What Zhai et al. 2021, arXiv 2106.04560, call g
# and G is "giant" and "gigantic" in timm, where the other names in small letters come from too.
_SIZES = {
    "Ti": {"width": 192, "depth": 12, "mlp_dim": 768, "heads": 3},
    "S": {"width": 384, "depth": 12, "mlp_dim": 1536, "heads": 6},
    "M": {"width": 512, "depth": 12, "mlp_dim": 2048, "heads": 8},
    "B": {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12},
    "L": {"width": 1024, "depth": 24, "mlp_dim": 4096, "heads": 16},
    "H": {"width": 1280, "depth": 32, "mlp_dim": 5120, "heads": 16},
    "g": {"width": 1536, "depth": 40, "mlp_dim": 4096, "heads": 24, "gated": True},
    "giant": {"width": 1408, "depth": 40, "mlp_dim": 6144, "heads": 16},
    "gigantic": {"width": 1664, "depth": 48, "mlp_dim": 8192, "heads": 16},
    "giantopt": {"width": 1536, "depth": 40, "mlp_dim": 6144, "heads": 16},
    "wee": {"width": 256, "depth": 14, "mlp_dim": 1280, "heads": 4},
    "little": {"width": 320, "depth": 14, "mlp_dim": 1792, "heads": 5},
    "mediumd": {"width": 512, "depth": 20, "mlp_dim": 2048, "heads": 8},
    "betwixt": {"width": 640, "depth": 12, "mlp_dim": 2560, "heads": 10},
    "so150m": {"width": 896, "depth": 18, "mlp_dim": 2304, "heads": 14},
    "so150m2": {"width": 832, "depth": 21, "mlp_dim": 2176, "heads": 13},
    "so400m": {"width": 1152, "depth": 27, "mlp_dim": 4304, "heads": 16},
    "xs": {"width": 256, "depth": 10, "mlp_dim": 1024, "heads": 4},
    "plus": {"width": 896, "depth": 12, "mlp_dim": 3584, "heads": 14},
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

# Google's hybrids: R50+ViT-B/16 is that of the ViT paper, the others are AugReg's. The tokens of
# R+Ti/16, whose ResNet is a root alone, are 32 pixels wide in spite of its name.
_HYBRIDS = {
    f"{resnet}+{size}/{name}": _fields(f"{size}/{patch}", stem="resnet", stem_units=units)
    for resnet, size, name, patch, units in (
        ("R", "Ti", 16, 32, ()),
        ("R26", "S", 32, 32, (2, 2, 2, 2)),
        ("R50", "B", 16, 16, (3, 4, 9)),
        ("R50", "L", 32, 32, (3, 4, 6, 3)),
    )
}

# Touvron et al. 2020, arXiv 2012.12877.
_DEIT = {
    f"DeiT-{name}{'-distilled' * distilled}": _fields(name, gelu="exact", distilled=distilled)
    for name in ("Ti/16", "S/16", "B/16")
    for distilled in (False, True)
}

# Touvron et al. 2022, arXiv 2204.07118.
_DEIT3 = {
    f"DeiT-III-{name}": _fields(name, gelu="exact", layer_scale=1e-6)
    for name in ("S/16", "M/16", "B/16", "L/16", "H/14")
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

# TIPSv2 of Google, after Maninis et al. 2024, arXiv 2410.16512.
_TIPS = {
    f"TIPSv2-{name}": _fields(
        name, gelu="exact", num_classes=0, image_size=448, layer_scale=1.0, registers=1
    )
    for name in ("B/14", "L/14", "so400m/14", "g/14")
}

# Assran et al. 2023, arXiv 2301.08243.
_IJEPA = {
    f"I-JEPA-{name}": _fields(name, gelu="exact", num_classes=0, image_size=size, pool="gap")
    for name, size in (("H/14", 224), ("H/16", 448), ("giant/16", 224))
}

# Wightman's searches for a better baseline (timm's "sbb"), with as many registers as the name says;
# and before them, without registers.
_SBB = {
    f"SBB-{name}-reg{registers}": _fields(
        name,
        gelu="exact",
        image_size=256,
        pool="gap",
        norm_pooled=True,
        layer_scale=1e-5,
        registers=registers,
    )
    for name, counts in {
        "wee/16": (1,),
        "little/16": (1, 4),
        "M/16": (1, 4),
        "mediumd/16": (4,),
        "betwixt/16": (1, 4),
        "so150m2/16": (1,),
    }.items()
    for registers in counts
}
_SBB["SBB-so150m2/16-reg1"]["qkv_bias"] = False
_SBB["SBB-so150m/16-reg4"] = _fields(
    "so150m/16", gelu="exact", image_size=256, pool="gap", registers=4
)
_SBB["SBB-M/16"] = _fields(
    "M/16", gelu="exact", image_size=256, pool="gap", layer_scale=1e-6, qkv_bias=False
)

# Relative positions, also by Wightman ("sw_in1k"): twins that differ in what the head reads.
_WITHOUT_BIAS = {"gelu": "exact", "layer_scale": 1e-6, "qkv_bias": False}
_MEAN = {**_WITHOUT_BIAS, "positions": "relative", "pool": "gap", "norm_pooled": True}
_RELPOS = {
    "relpos-S/16": _fields("S/16", **_MEAN),
    "relpos-M/16": _fields("M/16", **_MEAN),
    "relpos-B/16": _fields("B/16", **_MEAN),
    "relpos-B/16-clsgap": _fields("B/16", **{**_MEAN, "pool": "clsgap"}),
    "relpos-M/16-token": _fields(
        "M/16", **_WITHOUT_BIAS, positions="relative", relative_mlp_dim=256
    ),
    "relpos-B/16-token": _fields("B/16", **_WITHOUT_BIAS, positions="relative"),
} | {
    f"relpos-{size}/16-shared": _fields(
        f"{size}/16",
        **_WITHOUT_BIAS,
        positions="relative_shared",
        relative_mlp_dim=_SIZES[size]["width"],
        pool="gap",
    )
    for size in ("S", "M")
}

# The same with norms after the branches.
_RPN = {
    "relpos-M/16-rpn": _fields(
        "M/16", gelu="exact", positions="relative", qkv_bias=False, pool="gap", norm_after=True
    ),
    "relpos-plus/32-rpn": _fields(
        "plus/32", gelu="exact", image_size=256, positions="relative", pool="gap", norm_after=True
    ),
    "B/16-rpn": _fields(
        "B/16", gelu="exact", qkv_bias=False, pool="gap", norm_pooled=True, norm_after=True
    ),
}

# Image towers of CLIP: Radford et al. 2021, arXiv 2103.00020, and open_clip. The number is the
# width of the projection. OpenAI, MetaCLIP and DFN trained with the quick GELU.
_CLIP = {
    f"CLIP-{name}{'-quickgelu' * (gelu == 'quick')}": _fields(
        name,
        gelu=gelu,
        embed_norm=True,
        epsilon=1e-5,
        num_classes=0,
        projection=projection,
        **({"image_size": 240} if name == "plus/16" else {}),
    )
    for name, projection, gelus in (
        ("xs/16", 512, ("exact",)),
        ("M/32", 512, ("exact",)),
        ("M/16", 512, ("exact",)),
        ("betwixt/32", 512, ("exact",)),
        ("plus/16", 640, ("exact",)),
        ("B/32", 512, ("exact", "quick")),
        ("B/16", 512, ("exact", "quick")),
        ("L/14", 768, ("exact", "quick")),
        ("H/14", 1024, ("exact", "quick")),
        ("giant/14", 1024, ("exact",)),
        ("gigantic/14", 1280, ("exact", "quick")),
    )
    for gelu in gelus
}

# Image towers of SigLIP: Zhai et al. 2023, arXiv 2303.15343; with "-gap" without the pooling by
# attention, with which they were trained. The GELU is that of timm; big_vision's is "tanh" for all.
_SIGLIP = {
    f"SigLIP-{name}{'-gap' * (pool == 'gap')}": _fields(
        name, gelu=gelu, num_classes=0, image_size=size, pool=pool
    )
    for name, size, gelu in (
        ("B/16", 224, "exact"),
        ("L/16", 256, "exact"),
        ("so400m/14", 224, "exact"),
        ("B/32", 256, "tanh"),
        ("so400m/16", 256, "tanh"),
        ("giantopt/16", 256, "tanh"),
    )
    for pool in ("map", "gap")
}

# BEiT-3: Wang et al. 2022, arXiv 2208.10442.
_BEIT3 = {
    f"BEiT-3-{name}": _fields(
        name, gelu="exact", pool="clsgap", norm_pooled=True, inner_norms=True, epsilon=1e-5
    )
    for name in ("B/16", "L/16")
}

# EVA (Fang et al. 2022, arXiv 2211.07636), its plain ViT-L; InternViT (Chen et al. 2023, arXiv
# 2312.14238); RADIO (Ranzinger et al. 2023, arXiv 2312.06709), whose names have NVIDIA's versions.
_OTHERS = {
    "EVA-L/14": _fields("L/14", gelu="exact", image_size=196, pool="clsgap", norm_pooled=True),
    "InternViT-300M/14": _fields(
        "L/14", gelu="exact", num_classes=0, image_size=448, layer_scale=0.1, final_norm=False
    ),
}
_OTHERS |= {
    f"RADIO-{name}-{version}": _fields(
        name,
        gelu="exact",
        num_classes=0,
        image_size=512,
        layer_scale=scale,
        registers=registers,
        final_norm=False,
    )
    for name, version, registers, scale in (
        ("B/16", "v3", 7, 1e-5),
        ("L/16", "v3", 7, 1e-5),
        ("H/16", "v3", 7, 0.0),
        ("H/16", "v4", 9, 0.0),
        ("so400m/16", "v4", 9, 0.0),
    )
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

VARIANTS = {
    **{**_VIT, **_HYBRIDS, **_DEIT, **_DEIT3, **_DINO, **_DINOV2, **_TIPS, **_IJEPA, **_SBB},
    **{**_RELPOS, **_RPN, **_CLIP, **_SIGLIP, **_BEIT3, **_OTHERS, **_SMALL},
}
