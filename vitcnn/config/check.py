"""Check: names, types and required fields of a config, before any long work starts."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import models
from vitcnn.config.precision import check_precision
from vitcnn.config.schema import (
    COMPUTE,
    PARTS,
    STAGE,
    Ablation,
    Evaluation,
    Fields,
    Measurement,
    Training,
)
from vitcnn.convert import converted
from vitcnn.data import augment, sources
from vitcnn.data.resident import CHOICES
from vitcnn.lookup import REQUIRED, check_name, fields_of
from vitcnn.recipe.losses import LOSSES
from vitcnn.recipe.mixing import Mixing


def check_measurement(config: Fields, images: Any = None) -> ConfigDict:
    """Returns a checked measurement: defaults filled in, unset fields removed.

    Args:
      config: fields of `Measurement`, from `measurement()` or any mapping with some of them.
      images: a source in memory that replaces `config.data`; None uses `config.data`.

    Raises:
      ValueError: a field that is unknown (with the nearest right one), ill-typed or missing.
    """
    full = _check_schema(config, Measurement, "config")
    check_precision(full["precision"])
    _check_ranges(full, ("threads", "workers", "prefetch"))
    if images is None:
        full["data"] = _check_source(full["data"], "config.data")
    for name, fields in full["models"].items():
        full["models"][name] = _check_model(fields, f"config.models.{name}", "model")
    full["analyses"] = _check_analyses(full["analyses"], "config.analyses")
    full["stages"] = _check_stages(full["stages"], "config.stages")
    return ConfigDict(full)


def check_training(config: Fields) -> ConfigDict:
    """Returns a checked training config: defaults filled in, unset fields removed.

    Args:
      config: fields of `Training`, from `training()` or any mapping with some of them.

    Raises:
      ValueError: a field that is unknown (with the nearest right one), ill-typed or missing.
    """
    full = _check_schema(config, Training, "config")
    check_precision(full["precision"])
    check_name("compute", full["compute"], COMPUTE)
    check_name("loss", full["loss"], LOSSES)
    check_name("on_device", full["on_device"], CHOICES)
    full["model"] = _check_model(full["model"], "config.model", "network")
    full["data"] = _check_source(full["data"], "config.data")
    for kind in ("optimizer", "schedule", "mixing"):
        full[kind] = _check_part(full[kind], kind, f"config.{kind}")
    mixing = Mixing(**full["mixing"])  # checks its values
    if mixing.whole_targets and (full["loss"] != "sigmoid" or full["label_smoothing"]):
        raise ValueError(
            "config.mixing.whole_targets: expected config.loss = 'sigmoid' and "
            "config.label_smoothing = 0, because shares of a target then have no meaning"
        )
    augment.parse(full["augment"])
    full["evaluations"] = {
        name: _check_evaluation(name, fields) for name, fields in full["evaluations"].items()
    }
    _check_ranges(full, _RANGES)
    if full["resume_from"] and full["init_from"] not in ("", "random"):
        raise ValueError(
            "config.init_from and config.resume_from are both set: a state has weights already"
        )
    if not (full["resume_from"] or full["init_from"]):
        raise ValueError(
            "config.init_from is empty: give the weights from which training starts with "
            '--config.init_from=..., or "random" for random weights'
        )
    return ConfigDict(full)


BASELINE = "baseline"  # the run without differences
# The networks that an analysis of an ablation may name.
NETWORKS = ("model", "paired", "other")


def check_ablation(config: Fields) -> ConfigDict:
    """Returns a checked ablation, whose `runs` are whole training configs, the baseline first.

    Args:
      config: fields of `Ablation`, from `ablation()` or any mapping with some of them.

    Raises:
      ValueError: a field that is unknown (with the nearest right one), ill-typed or missing, in the
        config or in a run; two runs of one name, or of one training; a run that does not exist.
    """
    full = _check_schema(config, Ablation, "config")
    check_file_name(full["name"])
    check_precision(full["precision"])
    for name, least in (("seeds", 1), ("group", 1)):
        if full[name] < least:
            raise ValueError(f"config.{name} = {full[name]}: expected a number from {least}")
    full["data"] = _check_source(full["data"], "config.data")
    full["stages"] = _check_stages(full["stages"], "config.stages")
    full["analyses"] = _check_analyses(full["analyses"], "config.analyses")
    for name, fields in full["analyses"].items():
        fields["models"] = tuple(fields.get("models") or NETWORKS[:1])
        for network in fields["models"]:
            check_name(f"network in config.analyses.{name}.models:", network, NETWORKS)
        if "other" in fields["models"] and full["seeds"] < 2:
            raise ValueError(
                f"config.analyses.{name} compares with another seed, and config.seeds = 1: set "
                "config.seeds to 2 or more"
            )
    full["runs"] = _check_runs(full["baseline"], full["runs"])
    full["baseline"] = full["runs"][BASELINE]
    for field in ("against", "start", "factors"):
        for run, value in full[field].items():
            check_name(f"run in config.{field}:", run, full["runs"])
            if field != "factors":
                check_name(f"run in config.{field}.{run}:", value, full["runs"])
    for run in full["start"]:
        _check_start(run, full["start"])
    return ConfigDict(full)


def _check_start(run: str, start: Mapping[str, str]) -> None:
    """Raises ValueError if a run starts, over others or not, from its own weights."""
    chain = [run]
    while (before := start.get(chain[-1])) is not None:
        if before in chain:
            raise ValueError(f"config.start: {' starts from '.join([*chain, before])}")
        chain.append(before)


def _check_runs(baseline: Fields, runs: Fields) -> dict[str, Any]:
    """Returns the checked training of every run by name, the baseline first."""
    baseline = _without_unset(baseline)
    trainings = {BASELINE: _check_run(BASELINE, baseline)}
    folders = {BASELINE: BASELINE}  # some file systems do not tell capital letters from others
    for name, differences in runs.items():
        check_file_name(name)
        if folders.setdefault(name.casefold(), name) != name or name == BASELINE:
            raise ValueError(
                f"config.runs has two runs of one name, {folders[name.casefold()]!r} and {name!r}: "
                f"rename one of them ({BASELINE!r} is the run without differences)"
            )
        trainings[name] = _check_run(name, changed(baseline, differences))
    return trainings


def _check_run(name: str, config: Fields) -> ConfigDict:
    where = "config.baseline" if name == BASELINE else f"config.runs.{name}"
    try:
        return check_training(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def changed(config: Fields, differences: Fields) -> dict[str, Any]:
    """Returns a config with some fields changed.

    Args:
      config: the config, of plain dictionaries.
      differences: the fields that differ, nested as in the config. A part that names its plugin
        takes the place of the part.
    """
    merged = dict(config)
    for name, value in _without_unset(differences).items():
        if isinstance(value, Mapping) and not any(
            isinstance(value.get(field), str) for part in PARTS.values() for field in part.identity
        ):
            value = changed(merged.get(name, {}), value)
        merged[name] = value
    return merged


_FROM_1 = (lambda value: value >= 1, "a number from 1")
_FROM_0 = (lambda value: 0 <= value < math.inf, "a number from 0")
_SHARE = (lambda value: 0 <= value < 1, "a number from 0, and below 1")
_SOMETIMES = (lambda value: value != 0, 'a duration, such as 20 or "1 epoch"')
_RANGES = {
    "batch": _FROM_1,
    "accumulate": _FROM_1,
    "repeats": _FROM_1,
    "learning_rate": _FROM_0,
    "weight_decay": _FROM_0,
    "clip": _FROM_0,
    "label_smoothing": _SHARE,
    "average": _SHARE,
    "head_bias": (math.isfinite, "a finite number"),
    "data_seed": (lambda value: value >= -1, "a seed from 0, or -1 for that of config.seed"),
    "seed": _FROM_0,
    "log_every": _SOMETIMES,
    "checkpoint_every": _SOMETIMES,
    "threads": _FROM_0,
    "workers": (
        lambda value: value >= -1,
        "a number from 0, or -1 for that which suits the machine",
    ),
    "prefetch": _FROM_0,
    "profile": (
        lambda value: not value or re.fullmatch(r"\d+:\d+", value),
        'two steps, such as "10:20", or "" for no profile',
    ),
}


def _check_ranges(full: Fields, names: Iterable[str]) -> None:
    for name in names:
        fits, expected = _RANGES[name]
        if not fits(full[name]):
            raise ValueError(f"config.{name} = {full[name]!r}: expected {expected}")


def _check_evaluation(name: str, fields: Fields) -> dict[str, Any]:
    check_file_name(name)
    where = f"config.evaluations.{name}"
    full = _check_schema(fields, Evaluation, where)
    check_precision(full["precision"], f"{where}.precision")
    full["data"] = _check_source(full["data"], f"{where}.data")
    analyses = full["analyses"] or {"accuracy": {}}
    full["analyses"] = _check_analyses(analyses, f"{where}.analyses")
    full["stages"] = _check_stages(full["stages"], f"{where}.stages")
    if full["group"] < 1:
        raise ValueError(f"{where}.group = {full['group']}: expected a number from 1")
    return full


def check_file_name(name: str) -> None:
    """Raises ValueError unless a model, an analysis or a stage may have this name.

    The names become parts of file names.
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(
            f"{name!r} cannot name a model, an analysis or a stage: use only letters, digits and "
            "the characters _ . + -"
        )


def _check_schema(config: Fields, schema: type, where: str) -> dict[str, Any]:
    """Returns the fields of a dataclass, with defaults and converted values."""
    fields = fields_of(schema)
    values = {name: field.default for name, field in fields.items()}
    what = "the config" if where == "config" else where
    for name, value in _without_unset(config).items():
        check_name(f"field of {what}", name, fields)
        values[name] = converted(value, fields[name], f"{where}.{name}")
    return values


def _check_part(
    fields: Fields, kind: str, where: str, optional: Collection[str] = ()
) -> dict[str, Any]:
    """Returns the fields that name a plugin and its own fields.

    The former have to be there, unless they are `optional`: then they may be "".
    """
    part = PARTS[kind]
    for required in part.identity:
        if not fields.get(required) and required not in optional:
            raise ValueError(f"{where}.{required} is not set")
    identity = {name: fields.get(name) or "" for name in part.identity}
    rest = {name: value for name, value in fields.items() if name not in identity}
    return {**identity, **_check_fields(rest, part.fields(*identity.values()), where)}


def _check_model(fields: Fields, where: str, kind: str) -> dict[str, Any]:
    if fields.get("weights") == "":
        raise ValueError(f'{where}.weights is empty; give a path, or "random" for random weights')
    if fields.get("family") and fields.get("variant"):
        models.variant(fields["family"], fields["variant"])
    trained = fields.get("weights") not in (None, "random")
    decided = ("variant",) if fields.get("family") else ("family", "variant")
    return _check_part(fields, kind, where, decided if trained else ())


def _check_source(fields: Fields, where: str) -> dict[str, Any]:
    if not fields.get("source"):
        raise ValueError(f"{where}.source is not set: name one of {sources.names()}")
    source_fields = sources.fields(fields["source"])
    rest = {name: value for name, value in fields.items() if name != "source"}
    for name, field in source_fields.items():
        if field.default is REQUIRED and rest.get(name) in (None, ""):
            raise ValueError(f"{where}.{name} is not set; give it with --{where}.{name}=...")
    return {"source": fields["source"], **_check_fields(rest, source_fields, where)}


def _check_analyses(configs: Fields, where: str) -> dict[str, Any]:
    checked = {}
    for name, fields in configs.items():
        check_file_name(name)
        full = {**fields, "analysis": fields.get("analysis") or name}
        checked[name] = _check_part(full, "analysis", f"{where}.{name}")
    return checked


def _check_stages(stages: Fields, where: str) -> dict[str, Any]:
    checked = {}
    for name, fields in stages.items():
        check_file_name(name)
        for field in fields:
            check_name(f"field of {where}.{name}", field, STAGE)
        data = fields.get("data") or {}
        analyses = fields.get("analyses") or {}
        checked[name] = {
            "data": _check_source(data, f"{where}.{name}.data") if data else {},
            "analyses": _check_analyses(analyses, f"{where}.{name}.analyses"),
        }
    return checked


def _check_fields(values: Fields, fields: Fields, where: str) -> dict[str, Any]:
    """Returns values converted to the types of their fields; a field may be a mapping of fields."""
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
            checked[name] = converted(value, field, f"{where}.{name}")
    return checked


def _without_unset(config: Fields) -> dict[str, Any]:
    """Returns a config as plain dictionaries, without its unset fields."""
    plain = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            plain[name] = _without_unset(value)
        elif value is not None:
            plain[name] = value
    return plain
