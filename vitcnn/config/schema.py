"""Schema: the fields of configs, with their types, defaults and meanings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import analyses, models
from vitcnn.data import sources
from vitcnn.data.preprocess import Preprocess
from vitcnn.lookup import fields_of
from vitcnn.model import load
from vitcnn.recipe import optimizers, schedules
from vitcnn.recipe.mixing import Mixing

# Not fields of a network in a config: the type of its arithmetic belongs to the run.
NO_FIELDS = ("dtype",)

COMPUTE = ("float32", "bfloat16")

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
        or float32; or, where the backend has it, a name of jax.lax.DotAlgorithmPreset, such as
        BF16_BF16_F32_X6, which holds for products but not for convolutions.
      max_sums_gb: memory of the host, in GB, that the sums of all analyses may need at most; above
        it the run refuses to start.
      save_every_s: seconds between saves of the sums from which a stopped run resumes.
      threads: number of threads that load images; 0 for one per core of the machine, at most 16.
      workers: number of processes that load images in place of the threads; 0 for none; -1 for one
        per core, at most 64, where images are decoded and there are more than 16 cores.
      prefetch: number of groups that are loaded ahead.
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
    threads: int = 0
    workers: int = -1
    prefetch: int = 4
    compilation_cache: bool = True

    # These change no number.
    NEUTRAL = (
        *("save_every_s", "max_sums_gb", "compilation_cache"),
        *("threads", "workers", "prefetch"),
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Measurements of the network while it is trained, by any analyses.

    The analyses see the network so far under the name "model". An analysis that names more in its
    field `models` also sees "initial", the network before the first step; "final", the network
    after the last step, in which case it runs when training has ended, on weights that were kept;
    and "raw", the network without the average, where the config has `average`.

    Attributes:
      data: `source(...)`.
      analyses: name -> `analysis(...)`; left out, the accuracy.
      stages: name -> `stage(...)`, such as the fit of a probe; see `Measurement`.
      every: duration between two evaluations, or several durations after which to evaluate. Unless
        it is 0, there is also an evaluation before the first step. There always is one after the
        last step.
      group: number of images in an HSIC estimate, and in one call of the device program; no more
        than there are images.
      seed: seed of the random order of the images.
      precision: precision of every matrix product; see `Measurement`.
    """

    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    analyses: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    every: int | str | tuple = 0
    group: int = 128
    seed: int = 0
    precision: str = "highest"


@dataclasses.dataclass(frozen=True)
class Training:
    """What scripts/train.py does: it trains one network.

    A duration is a number of steps, or text: "300 epochs", "10000 steps", "1e6 examples", or "5%"
    of the training.

    Attributes:
      model: `network(...)`; its fields `new_head` and `position_resize` ("linear" in Google's
        fine-tuning) say how the weights of `init_from` are taken.
      data: `source(...)` of the training images.
      augment: augmentations of `vitcnn.data.augment` in the order of their use, such as "flip" or
        "randaugment(layers=2, magnitude=15)".
      repeats: how often each image is in a batch, augmented anew each time.
      mixing: `mixing(...)`: what the device does to a batch.
      optimizer: `optimizer(...)`: the direction of a step.
      learning_rate: peak of the learning rate.
      weight_decay: the share that a step takes off each weight, times the learning rate; for every
        optimizer, and not through its moments.
      decay: globs of the parameters that decay, on their whole path; "glob=factor" scales it.
      multipliers: "glob=factor": factors of learning rate and decay, by parameter. The first match
        counts; without a match the factor is 1, and 0 freezes the parameter.
      clip: global norm to which the gradient of the trained parameters is clipped; 0 for no
        clipping.
      schedule: `schedule(...)` of the learning rate.
      steps: length of the whole training, a duration; it includes the steps that the state of
        `resume_from` has taken.
      loss: "softmax" or "sigmoid" cross-entropy.
      label_smoothing: share of the target that is spread over all classes.
      head_bias: first value of the biases of the head, such as -log(classes) for a sigmoid loss.
      batch: number of images in a step, over all devices of all hosts.
      accumulate: number of parts of a batch whose gradients are computed one after the other and
        averaged, to save memory. Batch norm takes the statistics of one part at a time.
      compute: type of the arithmetic of the network, float32 or bfloat16. Parameters, logits, the
        loss and the trained model stay in float32.
      remat: whether the backward pass computes the inside of blocks again, to save memory.
      shard_parameters: whether the devices share parameters and optimizer state, to save memory.
      average: decay of the exponential average of the parameters; 0 for none. It is then the
        average that is evaluated and that the run leaves.
      precision: precision of matrix products of float32, see `Measurement`; "default" is the
        fastest of the hardware.
      seed: seed of the weights and of dropout.
      data_seed: seed of the order, the augmentation and the mixing of images; -1 for that of
        `seed`.
      init_from: weights from which training starts; "random" for random weights, "" for weights
        that the user has to give.
      resume_from: workdir of another run, or the folder of one step in its `checkpoints`, from
        whose whole state training goes on in this workdir; "" for none.
      evaluations: name -> `evaluation(...)`.
      snapshots: durations after which weights are kept in the folder `snapshots`.
      log_every: duration between lines of train.jsonl.
      checkpoint_every: duration between checkpoints, from which a stopped run resumes. The last
        two are kept.
      keep_every: duration between checkpoints that are kept for good; 0 for none.
      profile: "first:last" steps to write a trace of into the folder `profile`; "" for none.
      threads: number of threads that load images; 0 for one per core of the machine, at most 16.
      workers: number of processes that load images in place of the threads, see `Measurement`. They
        also pay where augmentation is most of the work.
      prefetch: number of batches that are loaded ahead.
      on_device: whether the images lie on every device as a whole, after their resizing: "always",
        "never", or "auto" for at most 1 GB of images that a training reads more than once. It needs
        augmentations that only move pixels, such as "flip" and "pad_crop".
      compilation_cache: whether compiled programs are kept in the cache folder of the user, so that
        a repeated or resumed run does not compile them again.
    """

    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    augment: tuple[str, ...] = ()
    repeats: int = 1
    mixing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"optimizer": "adam"})
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    decay: tuple[str, ...] = ("*kernel",)
    multipliers: tuple[str, ...] = ()
    clip: float = 1.0
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"schedule": "cosine"})
    steps: int | str = 1000
    loss: str = "softmax"
    label_smoothing: float = 0.0
    head_bias: float = 0.0
    batch: int = 128
    accumulate: int = 1
    compute: str = "float32"
    remat: bool = False
    shard_parameters: bool = False
    average: float = 0.0
    precision: str = "default"
    seed: int = 0
    data_seed: int = -1
    init_from: str = "random"
    resume_from: str = ""
    evaluations: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    snapshots: int | str | tuple = ()
    log_every: int | str = 20
    checkpoint_every: int | str = 500
    keep_every: int | str = 0
    profile: str = ""
    threads: int = 0
    workers: int = -1
    prefetch: int = 4
    on_device: str = "auto"
    compilation_cache: bool = True

    # These change no number.
    NEUTRAL = (
        *("log_every", "checkpoint_every", "keep_every", "snapshots", "profile"),
        *("threads", "workers", "prefetch", "on_device", "compilation_cache"),
    )
    # And these may also differ between the hosts of a run.
    PER_HOST = ("threads", "workers", "prefetch", "compilation_cache")


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What scripts/ablate.py does: it trains networks that differ in one thing, over several seeds.

    Every run is a training over `seeds` seeds, and so is the run "baseline". Seed s of every run
    has the same seeds of weights and of image order, so runs are compared in pairs. Which images a
    subset has is decided by its own field `subset_seed`, the same for all seeds.

    An analysis sees the network of a run under the name "model", and those that it names in its
    field `models`: "paired", the network of the same seed of the run that this run is compared
    with; and "other", the network of the next seed of that run. So "other" of the baseline shows
    how alike two networks are that differ in the seed only.

    Attributes:
      name: name of the ablation, by which claims and figures know it.
      baseline: a training config, see `Training`.
      runs: name -> differences from the baseline, nested as its fields are. A part that names
        another plugin, such as a family, takes the place of the whole part.
      against: name of a run -> the run that it is compared with; "baseline" if it is left out.
      start: name of a run -> the run from whose weights of the same seed it starts.
      factors: name of a run -> {factor: level}: what was varied, for figures and for the effects of
        factorial designs. The levels are numbers or words.
      seeds: number of seeds; more seeds may be added later.
      least_accuracy: accuracy of the baseline below which the ablation is void.
      data: `source(...)` of the images on which the networks are measured.
      analyses: name -> `analysis(...)`.
      stages: name -> `stage(...)`; see `Measurement`.
      group: number of images in an HSIC estimate, and in one call of the device program.
      precision: precision of every matrix product of the analyses; see `Measurement`.
    """

    name: str = ""
    baseline: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    runs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    against: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start: Mapping[str, str] = dataclasses.field(default_factory=dict)
    factors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 3
    least_accuracy: float = 0.0
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    analyses: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: int = 128
    precision: str = "highest"


def model_fields(family: str) -> dict[str, Any]:
    """Returns the fields of a model: those of `vitcnn.load`, its network and its `Preprocess`.

    Without a family there are none of a network: the weights decide about all of them.
    """
    load_fields = fields_of(load, ("family", "variant", "overrides"))
    if not family:
        return {**load_fields, "preprocess": fields_of(Preprocess)}
    module_fields = fields_of(models.network(family), ("parent", "name", *NO_FIELDS))
    return {**load_fields, **module_fields, "preprocess": fields_of(Preprocess)}


def network_fields(family: str) -> dict[str, Any]:
    """Returns the fields of a network to train: those of a model, without weights and seed."""
    return {k: v for k, v in model_fields(family).items() if k not in ("weights", "seed")}


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a config that names a plugin and has the fields of that plugin.

    Attributes:
      identity: field that names the plugin -> its meaning.
      fields: from the names to the plugin's own fields, by name.
    """

    identity: Mapping[str, str]
    fields: Callable[..., Mapping[str, Any]]


_MODEL = {
    "family": "a file of vitcnn/models; families differ in their fields: change it in the config; "
    "left out where the weights decide it",
    "variant": "usual name of the network, such as B/16 or R50x1; left out where the weights "
    "decide it",
}
PARTS = {
    "model": Part(_MODEL, lambda family, variant: model_fields(family)),
    "network": Part(_MODEL, lambda family, variant: network_fields(family)),
    "source": Part(
        {
            "source": "a file of vitcnn/data/sources; sources differ in their fields: change it in "
            "the config"
        },
        sources.fields,
    ),
    "analysis": Part(
        {"analysis": "a file of vitcnn/analyses; the fields below are its own"}, analyses.fields
    ),
    "optimizer": Part(
        {
            "optimizer": "a name out of vitcnn.recipe.optimizers.OPTIMIZERS; optimizers differ in "
            "their fields: change it in the config"
        },
        optimizers.fields,
    ),
    "schedule": Part(
        {
            "schedule": "a name out of vitcnn.recipe.schedules.SCHEDULES; schedules differ in "
            "their fields: change it in the config"
        },
        schedules.fields,
    ),
    "mixing": Part({}, lambda: fields_of(Mixing)),
}
# Field of a config -> the part that it holds.
SINGLE = {
    "model": "network",
    "data": "source",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "mixing": "mixing",
}
