"""The optimizer of a config."""

from __future__ import annotations

import jax
import optax
from ml_collections import ConfigDict


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optax optimizer of a config: linear warm-up, cosine decay, clipping."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, config.steps
    )
    fields = config.optimizer_fields.to_dict()
    if "weight_decay" in fields:  # of matrices, not of biases and norms
        fields["mask"] = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    made = getattr(optax, config.optimizer)(learning_rate=schedule, **fields)
    return optax.chain(optax.clip_by_global_norm(config.clip), made) if config.clip else made
