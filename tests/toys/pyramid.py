"""A family from outside of the package: a pyramid of windowed attention, without a class token.

Its stages have unequal depths, more heads and fewer positions each; the first attends within
windows of 4 x 4 positions. It is a small kin of Swin (Liu et al. 2021), without shifted windows.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import vitcnn

KIND = "vit"


class Attention(nn.Module):
    heads: int
    grid: tuple[int, int]
    window: tuple[int, int] | None
    block: str

    @nn.compact
    def __call__(self, x):
        n, positions, width = x.shape
        (rows, columns), (high, wide) = self.grid, self.window or self.grid
        windows = (rows // high) * (columns // wide)

        def split(y):  # [n, positions, width] -> [n, windows, heads, positions of one, width]
            y = y.reshape(n, rows // high, high, columns // wide, wide, self.heads, -1)
            return y.transpose(0, 1, 3, 5, 2, 4, 6).reshape(n, windows, self.heads, high * wide, -1)

        query, key, value = (split(nn.Dense(width, name=p)(x)) for p in ("query", "key", "value"))
        weights = jax.nn.softmax(query @ key.swapaxes(-1, -2) / jnp.sqrt(width // self.heads))
        where = {"grid": self.grid, "heads": self.heads}
        vitcnn.tap(
            self,
            f"{self.block}/attn_weights",
            weights if self.window else weights[:, 0],
            role="attention_weights",
            window=self.window,
            **where,
        )
        y = (weights @ value).reshape(n, rows // high, columns // wide, self.heads, high, wide, -1)
        y = y.transpose(0, 1, 4, 2, 5, 3, 6).reshape(n, positions, self.heads, -1)
        y = vitcnn.tap(self, f"{self.block}/heads", y, role="heads", **where)
        return nn.Dense(width, name="out")(y.reshape(n, positions, width))


class Pyramid(nn.Module):
    """A pyramid of windowed attention.

    Attributes:
      num_classes: width of the head.
      image_size: side of the images in pixels.
      depths: number of blocks of each stage.
      width: width of the first stage; each further stage doubles it.
      heads: attention heads of the first stage; each further stage doubles them.
      window: side of the windows of the first stage, in positions.
      dtype: type of the activations.
    """

    num_classes: int = 8
    image_size: int = 32
    depths: tuple[int, ...] = (2, 3)
    width: int = 16
    heads: int = 2
    window: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = nn.Conv(self.width, (4, 4), strides=4, name="patches")(images)
        side = x.shape[1]
        x = x.reshape(len(x), -1, self.width)
        x = vitcnn.tap(self, before := "embed", x, role="embed", grid=(side, side))
        for s, depth in enumerate(self.depths):
            if s:  # 2 x 2 positions become one, of twice the width
                x = x.reshape(len(x), side // 2, 2, side // 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
                side //= 2
                x = x.reshape(len(x), side * side, -1)
                x = nn.Dense(self.width * 2**s, name=f"merge{s}")(x)
                x = vitcnn.tap(self, before := f"stage{s + 1}/merge", x, grid=(side, side))
            for b in range(depth):
                block, where = f"stage{s + 1}/block{b:02d}", {"grid": (side, side)}
                window = (self.window, self.window) if s == 0 else None
                vitcnn.alias(f"{block}/in", before)
                y = nn.LayerNorm(name=f"ln1_{s}_{b}")(x)
                y = vitcnn.tap(self, f"{block}/ln1", y, role="norm", **where)
                attend = Attention(
                    self.heads * 2**s, (side, side), window, block, name=f"attn_{s}_{b}"
                )
                y = vitcnn.tap(
                    self, f"{block}/attn", attend(y), role="attention", skip=f"{block}/in", **where
                )
                x = vitcnn.tap(self, f"{block}/mid", x + y, role="residual", **where)
                y = nn.LayerNorm(name=f"ln2_{s}_{b}")(x)
                y = vitcnn.tap(self, f"{block}/ln2", y, role="norm", **where)
                y = nn.gelu(nn.Dense(2 * x.shape[-1], name=f"up_{s}_{b}")(y))
                y = vitcnn.tap(self, f"{block}/hidden", y, role="hidden", **where)
                y = nn.Dense(x.shape[-1], name=f"down_{s}_{b}")(y)
                y = vitcnn.tap(self, f"{block}/mlp", y, role="mlp", skip=f"{block}/mid", **where)
                x = vitcnn.tap(self, f"{block}/out", x + y, role="residual", **where)
                before = f"{block}/out"
        x = vitcnn.tap(self, "norm", nn.LayerNorm(name="norm")(x), role="norm", grid=(side, side))
        x = vitcnn.tap(self, "pooled", x.mean(1), role="pooled")
        return vitcnn.tap(self, "logits", nn.Dense(self.num_classes, name="head")(x), role="logits")


NETWORK = Pyramid

VARIANTS = {"tiny": {}, "deep": {"depths": (2, 4)}}
