"""Sizes of ablations: what the config files in configs/ablations have in common.

The argument of such a file is words separated by commas, of which the last is a size:

    --config=configs/ablations/skips.py:vit,mini

    smallest  a test: 2 steps of a tiny network on scenes
    mini      two CPU cores: 400 steps of 128 scenes; a baseline reaches 91%, what the cues allow
    cifar10   real images, from npz archives that the user gives: --config.baseline.data.path=...
              and --config.data.path=...
    imagenet  the paper's question on ImageNet, from TFDS, on a TPU slice
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from vitcnn.config.build import (
    ablation,
    analysis,
    network,
    optimizer,
    schedule,
    source,
    stage,
    training,
)
from vitcnn.lookup import check_name

CUES = {"texture": 0.9, "arrangement": 0.9, "noise": 0.2}  # of the scenes
_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616)}


@dataclasses.dataclass(frozen=True)
class Size:
    """What a size decides.

    Attributes:
      name: its name.
      networks: name of a network -> fields of `network(...)`, with its learning rate.
      classes: number of classes.
      batch: number of images of a step.
      steps: duration of a training.
      warmup: duration of the warm-up.
      seeds: number of seeds.
      images: number of images on which accuracies are measured.
      few: number of images of other measurements, a multiple of the group.
      group: number of images of a group.
      least_accuracy: of the baseline, below which an ablation is void.
    """

    name: str
    networks: dict[str, dict]
    classes: int
    batch: int
    steps: int | str
    warmup: int | str
    seeds: int
    images: int
    few: int
    group: int
    least_accuracy: float = 0.0


_VIT = {"family": "vit", "variant": "mini/4"}
_RESNET = {"family": "resnet", "variant": "mini", "last_norm_scale": 1.0}
SIZES = {
    "smallest": Size(
        "smallest",
        {
            "vit": {**_VIT, "width": 16, "depth": 2, "mlp_dim": 16, "heads": 2, "patch": 8},
            "vit_large": {**_VIT, "width": 24, "depth": 2, "mlp_dim": 16, "heads": 2, "patch": 8},
            "resnet": {**_RESNET, "units": (1, 1), "widths": (32, 32)},
        },
        **{"classes": 8, "batch": 8, "steps": 2, "warmup": 1, "seeds": 2},
        **{"images": 16, "few": 16, "group": 8},
    ),
    "mini": Size(
        "mini",
        {
            "vit": {**_VIT, "width": 64, "mlp_dim": 128, "heads": 4},
            "vit_large": _VIT,
            "resnet": {**_RESNET, "learning_rate": 3e-3},
        },
        **{"classes": 8, "batch": 128, "steps": 400, "warmup": 50, "seeds": 3},
        **{"images": 10_000, "few": 2000, "group": 100, "least_accuracy": 0.85},
    ),
    "cifar10": Size(
        "cifar10",
        {
            "vit": {**_VIT, "width": 64, "mlp_dim": 128, "heads": 4},
            "vit_large": {**_VIT, "width": 128, "depth": 8, "mlp_dim": 256, "heads": 4},
            "resnet": {**_RESNET, "units": (3, 3, 3), "widths": (32, 64, 128)},
        },
        **{"classes": 10, "batch": 128, "steps": 2000, "warmup": 200, "seeds": 3},
        **{"images": 10_000, "few": 2000, "group": 100},
    ),
    "imagenet": Size(
        "imagenet",
        {
            "vit": {"family": "vit", "variant": "B/32", "dropout": 0.1, "learning_rate": 3e-3},
            "vit_large": {
                "family": "vit",
                "variant": "L/16",
                "dropout": 0.1,
                "learning_rate": 3e-3,
            },
            "resnet": {
                **{"family": "resnet", "variant": "R50x1", "last_norm_scale": 1.0},
                "learning_rate": 1.6,
            },
        },
        **{"classes": 1000, "batch": 4096, "steps": "300 epochs", "warmup": 10_000, "seeds": 3},
        **{"images": 50_000, "few": 10_240, "group": 1024},
    ),
}


def parse(argument: str, *choices: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the words of the argument of a config file, the last of which is a size.

    Args:
      argument: words separated by commas.
      *choices: for each word before the size, what it may be.

    Raises:
      ValueError: an unknown word, or words that are missing or too many.
    """
    words = [word.strip() for word in argument.split(",") if word.strip()]
    if len(words) != len(choices) + 1:
        form = ",".join([*("|".join(names) for names in choices), "|".join(SIZES)])
        raise ValueError(f"the argument of the config is {argument!r}: expected {form}")
    for word, names in zip(words, [*choices, SIZES], strict=True):
        check_name("word of the argument:", word, names)
    return tuple(words)


def start(name: str, which: str, size_name: str, **fields) -> tuple[ConfigDict, Size]:
    """Returns an ablation with its baseline and its images, and the size.

    Args:
      name: name of the ablation.
      which: a network of the size.
      size_name: name of the size.
      **fields: further fields of the network.
    """
    size = SIZES[size_name]
    config = ablation(name)
    config.baseline = baseline(size, which, **fields)
    config.data = images(size, test=True)
    config.seeds, config.group = size.seeds, size.group
    config.least_accuracy = size.least_accuracy
    return config, size


def baseline(size: Size, which: str, **fields) -> ConfigDict:
    """Returns the training config of a network.

    Args:
      size: the size.
      which: a network of the size.
      **fields: further fields of the network.
    """
    values = {**size.networks[which], **fields}
    rate = values.pop("learning_rate", 1e-3)
    config = training()
    preprocess = {"preprocess": _CIFAR} if size.name == "cifar10" else {}
    config.model = network(
        values.pop("family"),
        values.pop("variant"),
        num_classes=size.classes,
        **values,
        **preprocess,
    )
    config.data = images(size)
    config.batch, config.steps, config.learning_rate = size.batch, size.steps, rate
    config.weight_decay = 0.05
    config.schedule = schedule("cosine", warmup=size.warmup)
    config.checkpoint_every = "25%"
    if size.name == "cifar10":
        config.augment = ("pad_crop(4, mode='zero')", "flip")
    if size.name == "imagenet":
        config.augment, config.weight_decay = ("inception_crop", "flip"), 0.3
        config.checkpoint_every = 2000
        if which == "resnet":
            config.optimizer = optimizer("sgd", momentum=0.9)
            config.weight_decay = 1e-3
    return config


def images(size: Size, test: bool = False, **fields) -> ConfigDict:
    """Returns the training images of a size, or its test images.

    Args:
      size: the size.
      test: whether these are the test images.
      **fields: fields of the source that differ.
    """
    if size.name == "cifar10":
        return source("npz", path="", **fields)
    if size.name == "imagenet":
        split = "validation" if test else "train"
        return source("tfds", name="imagenet2012", split=split, **fields)
    count = size.images if test else 20_000 if size.name == "mini" else 32
    scenes = {"size": count, "split": "test" if test else "train", **CUES}
    return source("scenes", **{**scenes, **fields})


def add_probes(config: ConfigDict, size: Size, features: tuple[str, ...], **fields) -> None:
    """Adds linear probes of all blocks to an ablation; see `vitcnn.analyses.probe`.

    Args:
      config: an ablation; it is changed.
      size: its size.
      features: what the probes read.
      **fields: further settings of all three jobs, such as `taps`.
    """
    if size.name == "imagenet":
        fit, held_out = {"shots": 10}, {"shots": 5, "draw_seed": 1}
    elif size.name == "smallest":
        fit, held_out = {}, {"start": 16}
    else:
        fit, held_out = {"stop": 2000}, {"start": 18_000, "stop": 20_000}
    config.stages.fit = stage(data=images(size, **fit))
    config.stages.held_out = stage(data=images(size, **held_out))
    config.stages.fit.analyses.probe = analysis("probe_fit", features=features, **fields)
    for scored in (config.stages.held_out, config):
        scored.analyses.probe = analysis("probe", **fields)
