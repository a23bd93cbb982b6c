"""The optimizer of a training config."""

from __future__ import annotations

import jax
import optax
from ml_collections import ConfigDict


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optax optimizer of a config: linear warm-up, cosine decay, clipping."""
    learning_rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, config.steps
    )
    fields = config.optimizer_fields.to_dict()
    if "weight_decay" in fields:  # matrices decay, biases and norms do not
        fields["mask"] = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    optimizer = getattr(optax, config.optimizer)(learning_rate=learning_rate, **fields)
    if not config.clip:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.clip), optimizer)
