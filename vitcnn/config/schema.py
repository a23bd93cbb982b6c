"""Schema: the fields of configs, with their types, defaults and meanings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import optax
from ml_collections import ConfigDict

from vitcnn import models
from vitcnn.data.preprocess import Preprocess
from vitcnn.lookup import Field, check_name, fields_of
from vitcnn.model import load

# Not fields of a config: types of arrays belong to a run, the others are set by the training loop.
NO_FIELDS = ("dtype", "mu_dtype", "accumulator_dtype", "mask", "learning_rate", "schedule")

PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")  # JAX's names

STAGE = {
    "data": "`source(...)`; left out, the stage takes the data of the config.",
    "analyses": "name -> `analysis(...)`.",
}

Fields = Mapping[str, Any] | ConfigDict  # of a config or of a part of it


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What scripts/analyze.py does: analyses of models in one pass over images.

    Attributes:
      models: name -> `model(...)`.
      data: `source(...)`.
      analyses: name -> `analysis(...)`.
      stages: name -> `stage(...)`: measurements of the same models on other images. They run first,
        in the order of their names. Analyses of the same name in later stages, and in the config
        itself, continue from their Results, as a probe continues from its fit.
      group: number of images in an HSIC estimate, and in one call of the device program.
      seed: seed of the random order of the images.
      precision: precision of every matrix product: default, high, highest, bfloat16, tensorfloat32
        or float32.
      max_sums_gb: memory of the host, in GB, that the sums of all analyses may need at most; above
        it the run refuses to start.
      save_every_s: seconds between saves of the sums from which a stopped run resumes.
      compilation_cache: whether compiled programs are kept in the cache folder of the user, so that
        a repeated or resumed run does not compile them again.
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
    compilation_cache: bool = True

    NEUTRAL = ("save_every_s", "max_sums_gb", "compilation_cache")  # these change no number


@dataclasses.dataclass(frozen=True)
class Training:
    """What scripts/train.py does: it trains one network.

    Attributes:
      model: `network(...)`.
      data: `source(...)` of the training images.
      eval_data: `source(...)` of the images for the final accuracy; left out, there is none.
      augment: augmentations of `vitcnn.data.augment` in the order of their use, such as "flip" or
        "pad_crop(2, mode='zero')".
      init_from: weights from which training starts; "" for random weights.
      batch: number of images in a step, over all devices of all hosts.
      steps: number of steps.
      optimizer: name of a function of optax.
      optimizer_fields: arguments of the optimizer, apart from the learning rate.
      learning_rate: peak of the learning rate, which follows a cosine to zero after `warmup`.
      warmup: number of steps in which the learning rate rises linearly from zero to its peak.
      clip: global norm to which the gradient is clipped; 0 for no clipping.
      label_smoothing: share of the target that is spread over all classes.
      precision: precision of matrix products; "default" is the fastest of the hardware.
      seed: seed of the weights, and of the order and the augmentation of the images.
      log_every: number of steps between lines of train.jsonl.
      checkpoint_every: number of steps between checkpoints, from which a stopped run resumes.
      compilation_cache: whether compiled programs are kept in the cache folder of the user, so that
        a repeated or resumed run does not compile them again.
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
    compilation_cache: bool = True

    NEUTRAL = ("log_every", "checkpoint_every", "compilation_cache")  # these change no number


def model_fields(family: str) -> dict[str, Any]:
    """Returns the fields of a model: those of `vitcnn.load`, its network and its `Preprocess`."""
    load_fields = fields_of(load, ("family", "variant", "overrides"))
    module_fields = fields_of(models.network(family), ("parent", "name", *NO_FIELDS))
    return {**load_fields, **module_fields, "preprocess": fields_of(Preprocess)}


def network_fields(family: str) -> dict[str, Any]:
    """Returns the fields of a network to train: those of a model, without weights and seed."""
    return {k: v for k, v in model_fields(family).items() if k not in ("weights", "seed")}


def optimizer_fields(name: str) -> dict[str, Field]:
    """Returns the fields of an optimizer of optax.

    Raises:
      ValueError: optax has no optimizer of this name; the message gives the nearest names.
    """
    optimizers = [
        function_name
        for function_name, function in inspect.getmembers(optax, inspect.isfunction)
        if "learning_rate" in inspect.signature(function).parameters
    ]
    check_name("optimizer of optax", name, optimizers)
    return fields_of(getattr(optax, name), NO_FIELDS)
