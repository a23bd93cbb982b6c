"""The config of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn.data import sources
from vitcnn.lookup import check_name

# The fields of a training config and their defaults; configs/train/ has examples.
CONFIG: Mapping[str, Any] = {
    "model": {},  # family, variant, fields of the module, preprocess
    "data": {},  # source, and the fields of its `load`
    "eval_data": {},  # the same for the final accuracy; {} for none
    "augment": (),  # see vitcnn.data.batches
    "init_from": "",  # checkpoint whose weights training starts from; "" is random weights
    "batch": 128,  # images per step, over all devices of all hosts
    "steps": 1000,
    "optimizer": "adamw",  # a function of optax
    "optimizer_fields": {},  # its arguments beside learning_rate
    "learning_rate": 1e-3,  # peak, reached after `warmup`, then cosine to zero
    "warmup": 100,  # steps
    "clip": 1.0,  # global norm of the gradient; 0 is no clipping
    "label_smoothing": 0.0,
    "precision": "default",  # of matrix products: "default" is the fast one of the hardware
    "seed": 0,  # weights, dropout, order and augmentation of the images
    "log_every": 20,  # steps between lines of train.jsonl
    "checkpoint_every": 500,  # steps between checkpoints to resume from
}

NEUTRAL = ("log_every", "checkpoint_every")  # fields that do not change a number


def defaults() -> ConfigDict:
    """Returns `CONFIG` for a config file to fill in: what it has, a flag can set."""
    return ConfigDict(CONFIG)


def check_config(config: Mapping[str, Any]) -> ConfigDict:
    """Returns a training config with defaults filled in; a ValueError names an unknown field."""
    for field in config:
        check_name("field of the config", field, CONFIG)
    full = ConfigDict({**CONFIG, **dict(config.items())})
    for field in ("family", "variant"):
        if not full.model.get(field):
            raise ValueError(f"config.model.{field} is not set")
    if not full.data.get("source"):
        raise ValueError(f"config.data.source is not set: name one of {sources.names()}")
    if full.steps < 1 or full.batch < 1:
        raise ValueError(f"steps = {full.steps} and batch = {full.batch} must be at least 1")
    if not 0 <= full.warmup < full.steps:
        raise ValueError(f"warmup = {full.warmup} must be from 0 to below steps = {full.steps}")
    return full


def open_data(config: Mapping[str, Any]) -> Any:
    """Opens a labelled source from the fields of a config."""
    source = sources.load(config["source"], **{k: v for k, v in config.items() if k != "source"})
    if not source.labelled:
        raise ValueError(f"the {config['source']} data have no labels, which training needs")
    return source
