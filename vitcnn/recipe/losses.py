"""Losses of soft labels, one number an image, in float32 whatever the network computes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32, Int

Logits = Float[Array, "image classes"]
Targets = Float32[Array, "image classes"]  # shares of the classes


def softmax(logits: Logits, targets: Targets) -> Float32[Array, " image"]:
    """Returns the cross-entropy of each image over classes that exclude each other, in nats."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def sigmoid(logits: Logits, targets: Targets) -> Float32[Array, " image"]:
    """Returns the binary cross-entropy of each image, the sum over its classes, in nats."""
    logits = logits.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


LOSSES = {"softmax": softmax, "sigmoid": sigmoid}


def targets(labels: Int[Array, " image"], classes: int, smoothing: float = 0.0) -> Targets:
    """Returns the target shares of labels.

    Args:
      labels: class of each image.
      classes: number of classes.
      smoothing: share of the target that is spread evenly over all classes, the right one too.
    """
    right = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    return optax.smooth_labels(right, smoothing)


def head_bias(params: Mapping[str, Any], heads: Sequence[str], value: float) -> dict[str, Any]:
    """Returns parameters in which every bias of the heads is `value`.

    With a kernel of zeros, -ln(classes) makes the first sigmoid loss about 1 + ln(classes), where 0
    makes it 0.7 x classes.

    Args:
      params: parameters by layer.
      heads: names of the layers that make logits; a network need not have all of them.
      value: the bias.

    Raises:
      ValueError: none of the heads is a layer with a bias.
    """
    present = [name for name in heads if "bias" in params.get(name, {})]
    if not present:
        raise ValueError(f"no head has a bias to set: the heads are {tuple(heads)}")
    changed = {
        name: {**params[name], "bias": jnp.full_like(params[name]["bias"], value)}
        for name in present
    }
    return {**params, **changed}
