"""Which tokens of a tap an analysis looks at: all, the class token, or the image positions."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Array, Float

from vitcnn.lookup import check_name
from vitcnn.taps import TapInfo

TOKENS = ("all", "class", "spatial")


def check(tokens: str, infos: Iterable[TapInfo]) -> None:
    """Raises ValueError unless `tokens` is one of `TOKENS` and some tap has the tokens asked for.

    Args:
      tokens: the config field.
      infos: of the taps of the analysis.
    """
    check_name("tokens", tokens, TOKENS)
    if tokens == "class" and not any(info.class_token for info in infos):
        raise ValueError(
            'tokens = "class", but none of the taps has a class token; set tokens = "all" or '
            '"spatial", or choose a model that has one'
        )


def cut(info: TapInfo, tokens: str) -> str:
    """Returns `tokens`, or "all" for a tap that has no such part and stays whole.

    These are taps without prefix tokens (maps of a ResNet, pooled features, logits) and, for
    "class", taps without a class token, such as those of a ViT that has registers but no class
    token.
    """
    has = info.class_token if tokens == "class" else info.prefix_tokens
    return tokens if has else "all"


def take(x: Float[Array, "n ..."], info: TapInfo, tokens: str) -> Float[Array, "n ..."]:
    """Returns the part of a tap that belongs to the tokens asked for.

    Args:
      x: the tap.
      info: what is known of it; see `cut` for the taps that are returned whole.
      tokens: "all"; "class", the first token; or "spatial", all but the prefix tokens (class,
        distillation and register tokens). Of attention weights these are the queries.
    """
    tokens = cut(info, tokens)
    if tokens == "all":
        return x
    axis = 2 if info.role == "attention_weights" else 1
    part = slice(0, 1) if tokens == "class" else slice(info.prefix_tokens, None)
    return x[(slice(None),) * axis + (part,)]
