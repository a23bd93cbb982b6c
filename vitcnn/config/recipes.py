"""Recipes: what the config files of a training have in common.

The argument of such a file names one of its recipes, after a variant where the recipe is one for
several networks, and before values for the arguments of the recipe:

    --config=configs/train/vit.py:B/16,augreg_i1k_medium2,wd=0.03,dropout=0.1

A recipe is a function. Its parameters without a default are the words before its name, the others
are its arguments. With `smallest` as the last word, the config takes two steps of a tiny network on
scenes, in the same way otherwise: see `smallest`.

Beside `build` there are functions that name the images of a recipe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import models
from vitcnn.config.build import evaluation, source
from vitcnn.convert import converted
from vitcnn.lookup import Field, check_name, nearest

Recipe = Callable[..., ConfigDict]

# How Google's networks are evaluated on ImageNet, in fields of `Preprocess`: the short side is 256
# pixels, averaged over areas, and the centre is cropped. Values go to [-1, 1], the default.
GOOGLE = {"resize": 256, "interpolation": "box"}
# Mean and deviation of ImageNet, by which networks of PyTorch and of Scenic take their images.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_SMALLEST = "smallest"
_SIDE, _CLASSES = 32, 8
_BATCH = 48  # divides by 3 repeats, 2 parts and up to 8 devices
# Fields of the tiny networks, by family.
_TINY = {
    "vit": {"width": 48, "depth": 2, "mlp_dim": 64, "heads": 3, "patch": 8},
    "mixer": {
        **{"width": 32, "depth": 2, "patch": 8},
        **{"tokens_mlp_dim": 16, "channels_mlp_dim": 32},
    },
    "resnet": {"units": (1, 1), "widths": (32, 32)},
    "bit": {"units": (1, 1), "widths": (32, 32)},
}


def build(argument: str, recipes: Mapping[str, Recipe]) -> ConfigDict:
    """Returns the config that the argument of a config file names.

    Args:
      argument: words in front of the recipe, its name, and arguments, separated by commas.
      recipes: name -> function that returns a config. If there is only one, its name may be absent.

    Raises:
      ValueError: an unknown recipe or argument (the message gives the nearest ones), words that are
        missing or too many, or a value of another type.
    """
    words, values, is_smallest = _parts(argument)
    if not words and len(recipes) == 1:
        words = list(recipes)
    if not words:
        raise ValueError(
            f"the argument of the config, {argument!r}, names no recipe: {nearest('', recipes)}"
        )
    *front, name = words
    check_name("recipe", name, [*recipes, _SMALLEST])
    required, options = _parameters(recipes[name])
    if len(front) != len(required):
        form = ",".join([*(parameter.upper() for parameter in required), name])
        raise ValueError(f"the argument of the config is {argument!r}: expected {form!r}")
    for option, text in values.items():
        check_name(f"argument of the recipe {name}:", option, options)
        values[option] = _converted(text, options[option], option)
    config = recipes[name](*front, **values)
    return smallest(config) if is_smallest else config


def _parts(argument: str) -> tuple[list[str], dict[str, str], bool]:
    """Returns (words, value by name, whether the last word is "smallest")."""
    parts = [part.strip() for part in argument.split(",") if part.strip()]
    is_smallest = parts[-1:] == [_SMALLEST]
    parts = parts[:-1] if is_smallest else parts
    words = [part for part in parts if "=" not in part]
    if parts[: len(words)] != words or _SMALLEST in words:
        raise ValueError(
            f"the argument of the config is {argument!r}: expected words, then arguments such as "
            f'"epochs=90", then perhaps {_SMALLEST!r}'
        )
    values = {}
    for part in parts[len(words) :]:
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in values:
            raise ValueError(f"the argument of the config has {name}=... twice")
        values[name] = value
    return words, values, is_smallest


def _parameters(recipe: Recipe) -> tuple[list[str], dict[str, Any]]:
    """Returns (names of the parameters without a default, default of the others by name)."""
    parameters = inspect.signature(recipe).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    return required, {p.name: p.default for p in parameters if p.default is not p.empty}


def _converted(text: str, default: Any, name: str) -> Any:
    """Returns the text of an argument as a value of the type of its default."""
    kind = type(default)
    try:
        value = kind(text) if kind in (int, float) else text
    except ValueError:
        value = text
    return converted(value, Field(name, kind, default), name)


def smallest(config: ConfigDict) -> ConfigDict:
    """Changes a training config so that it tries itself out in seconds.

    A tiny network of the same family takes two steps on 48 scenes of 32 pixels, of which the first
    is the warm-up if there is one, and is evaluated on 16 more. It starts from random weights.
    Everything else stays: augmentation, mixing, optimizer, schedule, loss and precision.

    Args:
      config: from `training()`; it is changed.

    Returns:
      The config.
    """
    model = config.model
    fields = {**models.variant(model.family, model.variant), **_set(model)}
    preprocess, side = model.preprocess, fields.get("image_size", 224)
    if preprocess.resize:  # so that the crop keeps its share
        preprocess.resize = round(preprocess.resize * _SIDE / side)
    model.update({**_TINY[model.family], "image_size": _SIDE, "num_classes": _CLASSES})
    if fields.get("pre_logits"):
        model.pre_logits = 16
    config.data = source("scenes", size=_BATCH, classes=_CLASSES)
    config.batch, config.steps = _BATCH, 2
    config.accumulate = min(config.accumulate, 2)
    for ramp in ("warmup", "cooldown"):
        if config.schedule[ramp]:
            config.schedule[ramp] = 1
    config.init_from = "random"
    for test in config.evaluations.values():
        stages = [stage for stage in test.stages.values() if stage.data]
        for part in (test, *stages):
            part.data = source("scenes", size=16, classes=_CLASSES, split="test")
        test.every = (0, 2) if isinstance(test.every, tuple) else 0
        test.group = 8
    return config


def _set(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields of a part of a config that have a value."""
    return {name: value for name, value in config.items() if value is not None}


def set_images(
    config: ConfigDict, data: str, name: str, train: str, **evaluations: str
) -> ConfigDict:
    """Sets the training images of a config, and the images of its evaluations.

    The accuracy is evaluated twenty times.

    Args:
      config: from `training()`; it is changed.
      data: where the images are, one of
        "tfds": in TFDS;
        "folder", "npz": in a folder or archive that the user has to give for training,
          `config.data.path`, and another for the last evaluation.
      name: name of the set in TFDS; "" for one that the user has to give.
      train: split of the training images in TFDS.
      **evaluations: name of an evaluation -> its split in TFDS.

    Returns:
      The config.
    """
    check_name("source of images", data, ("tfds", "folder", "npz"))
    if data == "tfds":
        config.data = source("tfds", name=name, split=train)
        tests = {key: source("tfds", name=name, split=s) for key, s in evaluations.items()}
    else:
        config.data = source(data, path="")
        tests = {list(evaluations)[-1]: source(data, path="")}
    for key, images in tests.items():
        config.evaluations[key] = evaluation(data=images, every="5%")
    return config


def set_imagenet(config: ConfigDict, data: str = "tfds", minival: bool = True) -> ConfigDict:
    """Sets the images of ImageNet's 1000 classes.

    Args:
      config: from `training()`; it is changed.
      data: see `set_images`.
      minival: whether the last 1% of the training images are kept for an evaluation, as in
        big_vision and vision_transformer.

    Returns:
      The config.
    """
    train, tests = "train", {"val": "validation"}
    if minival:
        train, tests = "train[:99%]", {"minival": "train[99%:]", **tests}
    return set_images(config, data, "imagenet2012", train, **tests)


def set_own(config: ConfigDict, data: str = "folder") -> ConfigDict:
    """Sets images that the user has to give: a set too large, or not free, for TFDS to have it.

    Args:
      config: from `training()`; it is changed.
      data: see `set_images`.

    Returns:
      The config.
    """
    return set_images(config, data, "", "train", val="validation")
