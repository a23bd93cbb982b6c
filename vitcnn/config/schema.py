"""The fields of configs: which there are, of which type, and what they mean."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import optax

from vitcnn import models
from vitcnn.data.preprocess import Preprocess
from vitcnn.lookup import Field, check_name, fields_of
from vitcnn.model import load

# Types of arrays belong to a run, not to a config.
NO_FIELDS = ("dtype", "mu_dtype", "accumulator_dtype", "mask", "learning_rate", "schedule")


PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")  # JAX's names


STAGE = {
    "data": "`source(...)`; that of the config if it is left out.",
    "analyses": "name -> `analysis(...)`.",
}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What scripts/analyze.py does: analyses of models in one pass over images.

    Attributes:
      models: name -> `model(...)`.
      data: `source(...)`.
      analyses: name -> `analysis(...)`.
      stages: name -> `stage(...)`: measurements of the same models on other images that come first,
        in the order of their names. Analyses of the same name in later stages, and in the config
        itself, go on from their Results: a probe from its fit.
      group: images of an HSIC estimate, and of a step of the device.
      seed: draws the images.
      precision: of every matrix product: default, high, highest, bfloat16, tensorfloat32 or
        float32.
      max_sums_gb: refuse to start if the sums of all analyses need more memory of the host.
      save_every_s: seconds between saves of what a stopped run resumes from.
    """

    models: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    analyses: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: int = 128
    seed: int = 0
    precision: str = "highest"
    max_sums_gb: float = 4.0
    save_every_s: float = 60.0

    NEUTRAL = ("save_every_s", "max_sums_gb")  # these change no number


@dataclasses.dataclass(frozen=True)
class Training:
    """What scripts/train.py does: one network, trained.

    Attributes:
      model: `network(...)`.
      data: `source(...)` of the training images.
      eval_data: `source(...)` for the final accuracy; leave it out for none.
      augment: names out of `vitcnn.data.augment.AUGMENTATIONS`, in the order of their use.
      init_from: weights that training starts from; "" for random weights.
      batch: images of a step, over all devices of all hosts.
      steps: number of steps.
      optimizer: a function of optax.
      optimizer_fields: its arguments beside the learning rate.
      learning_rate: peak, reached after `warmup`; from there a cosine to zero.
      warmup: steps.
      clip: global norm that the gradient is clipped to; 0 for no clipping.
      label_smoothing: share of the target that is spread over all classes.
      precision: of matrix products; "default" is the fast one of the hardware.
      seed: of the weights, the order and the augmentation of the images.
      log_every: steps between lines of train.jsonl.
      checkpoint_every: steps between checkpoints to resume from.
    """

    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    eval_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    augment: tuple[str, ...] = ()
    init_from: str = ""
    batch: int = 128
    steps: int = 1000
    optimizer: str = "adamw"
    optimizer_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: float = 1e-3
    warmup: int = 100
    clip: float = 1.0
    label_smoothing: float = 0.0
    precision: str = "default"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 500

    NEUTRAL = ("log_every", "checkpoint_every")  # these change no number


def model_fields(family: str) -> dict[str, Any]:
    """Returns the fields of a model of a family: of `vitcnn.load`, its network and Preprocess."""
    known = fields_of(load, ("family", "variant", "overrides"))
    return {**known, **_network_fields(family), "preprocess": fields_of(Preprocess)}


def network_fields(family: str) -> dict[str, Any]:
    """Returns the fields of a network of a family that is to be trained."""
    return {k: v for k, v in model_fields(family).items() if k not in ("weights", "seed")}


def _network_fields(family: str) -> dict[str, Field]:
    return fields_of(models.network(family), ("parent", "name", *NO_FIELDS))


def optimizer_fields(name: str) -> dict[str, Field]:
    """Returns the fields of an optimizer of optax; a ValueError lists the nearest ones."""
    known = [
        name
        for name, function in inspect.getmembers(optax, inspect.isfunction)
        if "learning_rate" in inspect.signature(function).parameters
    ]
    check_name("optimizer of optax", name, known)
    return fields_of(getattr(optax, name), NO_FIELDS)
