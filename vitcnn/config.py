"""Configs: the one room for what config files call, shared by measurement and training.

A config file makes a `ml_collections.ConfigDict` of these:

    config = measurement()
    config.models.vit = model("vit", "B/16", weights="")
    config.data = source("npz", path="")
    config.analyses.cka = analysis("cka", images=1000)

Each of them holds every field of the thing that it names, so that a flag can set it:
`--config.models.vit.image_size=384`. A field that nobody sets is an unset placeholder, which means
the default of whatever owns it (for a network first the weights' own value, then the variant's) and
never reaches it. None is no value. An empty string stands for what the user has to give.

`check_measurement` and `check_training` return a config without its unset fields, and raise a
ValueError that names whatever is wrong, before any work starts.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import optax
from ml_collections import ConfigDict, FieldReference

from vitcnn import analyses, models
from vitcnn.data import sources
from vitcnn.data.preprocess import Preprocess
from vitcnn.lookup import REQUIRED, Field, check_name, fields_of
from vitcnn.model import load

# Types of arrays belong to a run, not to a config.
NO_FIELDS = ("dtype", "mu_dtype", "accumulator_dtype", "mask", "learning_rate", "schedule")
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")  # JAX's names


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


def measurement() -> ConfigDict:
    """Returns the config of a measurement for a config file to fill in; see `Measurement`."""
    return _filled(fields_of(Measurement), {})


def training(optimizer: str = "adamw", **fields: Any) -> ConfigDict:
    """Returns the config of a training run for a config file to fill in; see `Training`.

    Args:
      optimizer: a function of optax.
      **fields: its arguments beside the learning rate that are not the default.
    """
    config = _filled(fields_of(Training), {"optimizer": optimizer})
    config.optimizer_fields = _unset(optimizer_fields(optimizer), fields, f"optimizer {optimizer}")
    return config


def model(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a model to measure.

    Args:
      family, variant: see `vitcnn.load`.
      **fields: arguments of `vitcnn.load` and fields of the network that are not the default;
        `weights=""` has the user give them.
    """
    return _named({"family": family, "variant": variant}, model_fields(family), fields)


def network(family: str, variant: str, **fields: Any) -> ConfigDict:
    """Returns the config of a network to train: a `model` without weights and seed of its own."""
    return _named({"family": family, "variant": variant}, network_fields(family), fields)


def source(name: str, /, **fields: Any) -> ConfigDict:
    """Returns the config of images; see `vitcnn.data.sources`.

    Args:
      name: name of the source.
      **fields: its fields that are not the default; `path=""` has the user give it.
    """
    return _named({"source": name}, sources.fields(name), fields)


def analysis(name: str, **fields: Any) -> ConfigDict:
    """Returns the config of an analysis; see `vitcnn.analyses`.

    Args:
      name: name of the analysis.
      **fields: its settings that are not the default.
    """
    return _named({"analysis": name}, analyses.fields(name), fields)


def stage(**fields: Any) -> ConfigDict:
    """Returns the config of a stage: `data` (that of the config if left out) and `analyses`."""
    for field in fields:
        check_name("field of a stage", field, STAGE)
    return ConfigDict({**{name: ConfigDict() for name in STAGE}, **fields})


STAGE = {
    "data": "`source(...)`; that of the config if it is left out.",
    "analyses": "name -> `analysis(...)`.",
}


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


def _named(
    head: Mapping[str, str], fields: Mapping[str, Any], values: Mapping[str, Any]
) -> ConfigDict:
    """Returns the config of a named thing: what names it, and all its fields."""
    config = _unset(fields, values, " ".join(head.values()))
    config.update(head)
    return config


def _unset(fields: Mapping[str, Any], values: Mapping[str, Any], what: str) -> ConfigDict:
    """Returns a placeholder for every field, with the values that are given in them."""
    for name in values:
        check_name(f"field of {what}:", name, fields)
    config = ConfigDict()
    for name, field in fields.items():
        value = values.get(name)
        if isinstance(field, Mapping):
            config[name] = _unset(field, value or {}, f"{what}.{name}")
        elif field.type is dict:
            config[name] = ConfigDict(value or {})
        else:
            config[name] = FieldReference(value, field_type=field.type)
    return config


def _filled(fields: Mapping[str, Field], values: Mapping[str, Any]) -> ConfigDict:
    """Returns every field with its value, else its default."""
    config = ConfigDict()
    for name, field in fields.items():
        value = values.get(name, field.default)
        config[name] = ConfigDict() if field.type is dict else FieldReference(value, field.type)
    return config


def check_measurement(config: Mapping[str, Any], images: Any = None) -> ConfigDict:
    """Returns a measurement with defaults for what it leaves out and without its unset fields.

    Args:
      config: fields of `Measurement`, from `measurement()` or any mapping with some of them.
      images: a ready source, if `config.data` is not to be used.

    Raises:
      ValueError: an unknown or ill-typed field, with the nearest right one, or a missing one.
    """
    full = _checked(config, Measurement)
    check_name("precision", full["precision"], PRECISIONS)
    if images is None:
        full["data"] = _check_source(full["data"], "config.data")
    for name, fields in full["models"].items():
        full["models"][name] = _check_model(fields, f"config.models.{name}", model_fields)
    full["analyses"] = _check_analyses(full["analyses"], "config.analyses")
    for name, fields in full["stages"].items():
        check_file_name(name)
        where = f"config.stages.{name}"
        for field in fields:
            check_name(f"field of {where}", field, STAGE)
        data = fields.get("data") or {}
        full["stages"][name] = {
            "data": _check_source(data, f"{where}.data") if data else {},
            "analyses": _check_analyses(fields.get("analyses") or {}, f"{where}.analyses"),
        }
    return ConfigDict(full)


def check_training(config: Mapping[str, Any]) -> ConfigDict:
    """Returns a training config with defaults for what it leaves out and without its unset fields.

    Args:
      config: fields of `Training`, from `training()` or any mapping with some of them.

    Raises:
      ValueError: an unknown or ill-typed field, with the nearest right one, or a missing one.
    """
    full = _checked(config, Training)
    check_name("precision", full["precision"], PRECISIONS)
    full["model"] = _check_model(full["model"], "config.model", network_fields)
    full["data"] = _check_source(full["data"], "config.data")
    if full["eval_data"]:
        full["eval_data"] = _check_source(full["eval_data"], "config.eval_data")
    full["optimizer_fields"] = _check_fields(
        full["optimizer_fields"], optimizer_fields(full["optimizer"]), "config.optimizer_fields"
    )
    if full["steps"] < 1 or full["batch"] < 1:
        raise ValueError(
            f"config.steps = {full['steps']} and config.batch = {full['batch']} must be at least 1"
        )
    if not 0 <= full["warmup"] < full["steps"]:
        raise ValueError(
            f"config.warmup = {full['warmup']} must be from 0 to below config.steps = "
            f"{full['steps']}"
        )
    return ConfigDict(full)


def check_file_name(name: str) -> None:
    """Raises ValueError unless the name of a model, an analysis or a stage can name a file."""
    if not re.fullmatch(r"[\w.+-]+", name):  # it becomes part of file names
        raise ValueError(
            f"{name!r} cannot name a model, an analysis or a stage: use letters, digits, _.+-"
        )


def _checked(config: Mapping[str, Any], schema: type) -> dict[str, Any]:
    known = fields_of(schema)
    config = _set(config)
    for field in config:
        check_name("field of the config", field, known)
    values = {name: _typed(value, known[name], f"config.{name}") for name, value in config.items()}
    return {**{name: field.default for name, field in known.items()}, **values}


def _check_model(fields: Mapping[str, Any], where: str, fields_of_family: Any) -> dict[str, Any]:
    for needed in ("family", "variant"):
        if not fields.get(needed):
            raise ValueError(f"{where}.{needed} is not set")
    if fields.get("weights") == "":
        raise ValueError(f'{where}.weights is empty; give a path, or "random" for random weights')
    models.variant(fields["family"], fields["variant"])
    head = {name: fields[name] for name in ("family", "variant")}
    rest = {name: value for name, value in fields.items() if name not in head}
    return {**head, **_check_fields(rest, fields_of_family(head["family"]), where)}


def _check_source(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not fields.get("source"):
        raise ValueError(f"{where}.source is not set: name one of {sources.names()}")
    known = sources.fields(fields["source"])
    rest = {name: value for name, value in fields.items() if name != "source"}
    needed = [name for name, field in known.items() if field.default is REQUIRED]
    for name in needed:
        if rest.get(name) in (None, ""):
            raise ValueError(f"{where}.{name} is not set; give it with --{where}.{name}=...")
    return {"source": fields["source"], **_check_fields(rest, known, where)}


def _check_analyses(configs: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = {}
    for name, fields in configs.items():
        check_file_name(name)
        kind = fields.get("analysis") or name
        rest = {k: v for k, v in fields.items() if k != "analysis"}
        rest = _check_fields(rest, analyses.fields(kind), f"{where}.{name}")
        checked[name] = {"analysis": kind, **rest}
    return checked


def _check_fields(
    values: Mapping[str, Any], fields: Mapping[str, Any], where: str
) -> dict[str, Any]:
    checked = {}
    for name, value in values.items():
        check_name(f"field of {where}", name, fields)
        field = fields[name]
        if isinstance(field, Mapping):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}.{name} = {value!r}: expected {{field: value}}")
            if inner := _check_fields(value, field, f"{where}.{name}"):
                checked[name] = inner
        else:
            checked[name] = _typed(value, field, f"{where}.{name}")
    return checked


def _set(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config as plain dictionaries without its unset fields."""
    plain = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            plain[name] = _set(value)
        elif value is not None:
            plain[name] = value
    return plain


def _typed(value: Any, field: Field, where: str) -> Any:
    """Returns a value in the type of its field; a ValueError says what was expected."""
    kind = field.type
    if kind is tuple:
        if isinstance(value, str):  # one name, or several as a flag has them
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            value = (value,)
        if field.item is str:  # "a,b" is two names also where a flag made one of it
            value = [part.strip() for item in value for part in str(item).split(",")]
        return tuple(value)
    if isinstance(value, list):  # a network has to be hashable
        return tuple(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    fits = {int: number and value == int(value) if number else False, bool: value in (True, False)}
    if not fits.get(kind, kind in (object, dict) or isinstance(value, kind)):
        raise ValueError(f"{where} = {value!r}: expected {_TYPES[kind]}")
    return int(value) if kind is int else bool(value) if kind is bool else value


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def walk(config: Mapping[str, Any], where: str = "config") -> Iterator[tuple[str, Any, Field]]:
    """Yields (path, value, field) of every field of a config that a flag can set.

    Args:
      config: from `measurement()` or `training()`.
      where: what the paths begin with.
    """
    schema = fields_of(Training if "steps" in config else Measurement)
    for name, field in schema.items():
        path, value = f"{where}.{name}", config[name]
        if name in ("models", "analyses"):
            for key, inner in value.items():
                yield from _walk_thing(inner, f"{path}.{key}")
        elif name == "stages":
            for key, inner in value.items():
                yield from _walk_thing(inner.data, f"{path}.{key}.data")
                for job, fields in inner.analyses.items():
                    yield from _walk_thing(fields, f"{path}.{key}.analyses.{job}")
        elif name in ("data", "eval_data", "model"):
            yield from _walk_thing(value, path, network_fields if name == "model" else model_fields)
        elif name == "optimizer_fields":
            yield from _walk_fields(value, optimizer_fields(config["optimizer"]), path)
        else:
            yield path, value, field


def _walk_thing(thing: Mapping[str, Any], where: str, of_family: Any = model_fields):
    if not thing:
        return
    if "family" in thing:
        heads, fields = _MODEL_HEADS, of_family(thing["family"])
        variant = models.variant(thing["family"], thing["variant"])
        fields = {
            name: dataclasses.replace(field, default=variant[name]) if name in variant else field
            for name, field in fields.items()
        }
    elif "source" in thing:
        heads, fields = _SOURCE_HEADS, sources.fields(thing["source"])
    else:
        heads, fields = _ANALYSIS_HEADS, analyses.fields(thing["analysis"])
    for name, meaning in heads.items():
        yield f"{where}.{name}", thing[name], Field(name, str, REQUIRED, meaning)
    yield from _walk_fields(thing, fields, where)


_MODEL_HEADS = {
    "family": "a file of vitcnn/models; another one has other fields: change it in the config",
    "variant": "usual name of the network, such as B/16 or R50x1",
}
_SOURCE_HEADS = {
    "source": "a file of vitcnn/data/sources; another one has other fields: change it in the config"
}
_ANALYSIS_HEADS = {"analysis": "a file of vitcnn/analyses; it has the fields below"}


def _walk_fields(values: Mapping[str, Any], fields: Mapping[str, Any], where: str):
    for name, field in fields.items():
        if isinstance(field, Mapping):
            yield from _walk_fields(values[name], field, f"{where}.{name}")
        else:
            yield f"{where}.{name}", values[name], field
