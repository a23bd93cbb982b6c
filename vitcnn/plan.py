"""What a config asks for, resolved and checked before any long work starts.

A `Job` is one analysis of named models: a pure function of the config and the data, so that a
resumed run, or another host, makes the same ones.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from ml_collections import ConfigDict

from vitcnn import analyses, data
from vitcnn.lookup import check_name, nearest
from vitcnn.model import Model, load
from vitcnn.similarity.cka import check_group

# The fields of an analysis config and their defaults; configs/analyze/ has examples.
CONFIG: Mapping[str, Any] = {
    "models": {},  # name -> family, variant, weights, preprocess, fields of the module
    "data": {},  # source, and the fields of its `load`
    "analyses": {},  # name -> fields of JOB, and those of the analysis
    "stages": {},  # name -> fields of STAGE: runs that come first, in the order of their names
    "group": 128,  # images per HSIC estimate
    "seed": 0,  # draws the images
    "precision": "highest",  # of every matrix product of the program
    "max_sums_gb": 4.0,  # refuse to start if the sums of all analyses need more
    "save_every_s": 60.0,  # how often the sums are saved for resuming
}
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")  # JAX's names
JOB: Mapping[str, Any] = {
    "analysis": "",  # file in vitcnn/analyses; "" is the name of the job
    "models": (),  # names, in the order of the result; () is all, by name
    "taps": (),  # globs; () is the analysis's TAPS
    "images": 0,  # 0 is the analysis's IMAGES, or all there are if that is less
    "repeats": 1,  # draws of the images; the estimate pools them, error bars are those of one
}
# A stage is an ordinary run of the same models. Its Results are `given` to the jobs of the same
# name in later stages and in the config itself: a probe goes on from its fit on other images.
STAGE: Mapping[str, Any] = {
    "data": {},  # {} is those of the config
    "analyses": {},
}
NEUTRAL = ("save_every_s", "max_sums_gb")  # fields that do not change a number


def defaults() -> ConfigDict:
    """Returns `CONFIG` for a config file to fill in: what it has, a flag can set."""
    return ConfigDict(CONFIG)


def job(analysis: str = "", **fields: Any) -> ConfigDict:
    """Returns the fields of one analysis, with changes, for a config file.

    They are `JOB` and, where the analysis is named, its own: what a config has, a flag can set.
    """
    own = analyses.constant(analyses.find(analysis), "FIELDS") if analysis else {}
    return ConfigDict({**JOB, **own, "analysis": analysis, **fields})


def stage(**fields: Any) -> ConfigDict:
    """Returns the fields of one stage, `STAGE` with changes, for a config file."""
    return ConfigDict({**STAGE, **fields})


def check_config(config: Mapping[str, Any], source: Any = None) -> ConfigDict:
    """Returns a config with the defaults of `CONFIG` filled in.

    Args:
      config: as the user gave it.
      source: ready images, if `config.data` is not to be used.

    Raises:
      ValueError: an unknown field; the message gives the nearest one.
    """
    for field in config:
        check_name("field of the config", field, CONFIG)
    full = ConfigDict({**CONFIG, **dict(config.items())})
    check_name("precision", full.precision, PRECISIONS)
    if source is None:
        _check_data(full.data, "config.data")
    for name, fields in full.stages.items():
        _check_file_name(name)
        for field in fields:
            check_name(f"field of config.stages.{name}", field, STAGE)
        if fields.get("data"):
            _check_data(fields.data, f"config.stages.{name}.data")
    full.stages = ConfigDict({n: {**STAGE, **dict(f.items())} for n, f in full.stages.items()})
    return full


def _check_file_name(name: str) -> None:
    if not re.fullmatch(r"[\w.+-]+", name):  # it becomes part of file names
        raise ValueError(
            f"{name!r} cannot name a model, an analysis or a stage: use letters, digits, _.+-"
        )


def _check_data(fields: Mapping[str, Any], where: str) -> None:
    if not fields.get("source"):
        raise ValueError(f"{where}.source is not set: name one of {data.sources()}")
    for field, value in fields.items():
        if isinstance(value, str) and not value:
            raise ValueError(f"{where}.{field} is empty; give it with --{where}.{field}=...")


def load_data(fields: Mapping[str, Any]) -> Any:
    """Opens the images that `config.data` names."""
    fields = dict(fields.items())
    return data.load(fields.pop("source"), **fields)


def load_models(configs: Mapping[str, Any]) -> dict[str, Model]:
    """Loads every model of a config: name -> `vitcnn.load(**fields)`."""
    loaded = {}
    for name, fields in configs.items():
        fields = dict(fields.items())
        for needed in ("family", "variant"):
            if not fields.get(needed):
                raise ValueError(f"config.models.{name}.{needed} is not set")
        if fields.get("weights") == "":
            raise ValueError(
                f"config.models.{name}.weights is empty; give a path, or None for random"
            )
        if "preprocess" in fields:
            fields["preprocess"] = dict(fields["preprocess"].items())
        loaded[name] = load(fields.pop("family"), fields.pop("variant"), **fields)
    return loaded


@dataclasses.dataclass(frozen=True)
class Job:
    """One analysis of named models, everything resolved and checked.

    Attributes:
      name: name of its result.
      analysis: module of the analysis.
      config: its fields, and those of `PLANNED`.
      taps: model name -> names of its taps.
      images: images of one repeat.
      repeats: number of draws.
    """

    # What the plan adds to the fields of an analysis; see `vitcnn.analyses`.
    PLANNED: ClassVar = ("layers", "infos", "classes", "length", "draws")

    name: str
    analysis: ModuleType
    config: ConfigDict
    taps: Mapping[str, tuple[str, ...]]
    images: int
    repeats: int

    def constant(self, name: str) -> Any:
        """Returns a constant of the analysis, or its default."""
        return analyses.constant(self.analysis, name)


def plan_jobs(
    models: Mapping[str, Model],
    source: Any,
    configs: Mapping[str, Any],
    group: int,
    stages: Mapping[str, Any] = {},
    where: str = "config.",
) -> list[Job]:
    """Resolves and checks the analyses of a config before any long work.

    Args:
      models: name -> model.
      source: the images.
      configs: name -> fields of an analysis.
      group: images of a group.
      stages: what comes before: name of a stage -> its `configs`.
      where: what stands before "analyses" in messages: "config.stages.fit." for a stage.

    Raises:
      ValueError: unknown analysis, model, field or tap pattern (with the nearest names), a group
        smaller than an analysis needs or larger than the data, or more images than there are.
    """
    check_group(group, len(source))
    for name in [*models, *configs]:
        _check_file_name(name)
    if not configs:
        raise ValueError(f"{where}analyses is empty: name at least one, such as cka")
    jobs = []
    for name, given in configs.items():
        given, here = dict(given), f"{where}analyses.{name}"
        analysis = analyses.find(given.get("analysis") or name)
        fields = {**JOB, **analyses.constant(analysis, "FIELDS")}
        for field in given:
            check_name(f"field of {here}", field, fields)
        fields.update(given)
        for field in ("models", "taps"):
            fields[field] = (
                (fields[field],) if isinstance(fields[field], str) else (*fields[field],)
            )
        if len(set(fields["models"])) < len(fields["models"]):
            raise ValueError(f"{here}.models names a model twice: {fields['models']}")
        if fields["repeats"] < 1 or fields["images"] < 0:
            raise ValueError(
                f"{here}: repeats = {fields['repeats']} must be at least 1, and "
                f"images = {fields['images']} at least 0 (all)"
            )
        for model in fields["models"]:
            check_name(f"model in {here}.models", model, models)
        if analyses.constant(analysis, "LABELS") and not source.labelled:
            warnings.warn(
                f"{name} needs labels, which the data do not have: left out", stacklevel=2
            )
            continue
        if fields["images"] > len(source):
            raise ValueError(
                f"{here}.images = {fields['images']}, but the data have {len(source)} images"
            )
        images = fields["images"] or min(analyses.constant(analysis, "IMAGES"), len(source))
        least = analyses.constant(analysis, "MIN_GROUP")
        if min(group, images) < least:
            raise ValueError(
                f"{here} needs groups of at least {least} images, but config.group = {group} and "
                f"it has {images} images"
            )
        chosen = fields["models"] or tuple(models)
        if analyses.constant(analysis, "HEAD"):
            for model in chosen:
                models[model].check_classes(source)
        for field in analyses.constant(analysis, "GIVEN"):
            stage = fields[field]
            if name not in stages.get(stage, {}):
                raise ValueError(
                    f"{here}.{field} = {stage!r}: {name} goes on from a job of its "
                    f"name in that stage, which comes before; set config.stages.{stage}.analyses."
                    f"{name} as configs/analyze/everything.py does"
                )
        one = analyses.constant(analysis, "ONE_MODEL")
        every = _select(here, analysis, fields["taps"], {m: models[m] for m in chosen})
        for members in [(m,) for m in chosen] if one else [tuple(chosen)]:
            taps = {m: every[m] for m in members}
            config = ConfigDict(fields)
            config.layers = tuple((m, tap) for m in members for tap in taps[m])
            config.infos = tuple(models[m].taps[tap] for m, tap in config.layers)
            config.classes, config.length = source.classes, len(source)
            config.draws = getattr(source, "draws", 1)
            label = f"{name}.{members[0]}" if one else name
            jobs.append(Job(label, analysis, config, taps, images, fields["repeats"]))
    if not jobs:
        raise ValueError("no analysis is left to run")
    return jobs


def _select(here, analysis, patterns, models) -> dict[str, tuple[str, ...]]:
    """Returns the taps of each model; a pattern need not match in every model, but in one."""
    known = list(dict.fromkeys(tap for model in models.values() for tap in model.taps))
    for pattern in patterns:
        if not any(model.taps.match(pattern) for model in models.values()):
            raise ValueError(
                f"{here}.taps: no tap of {', '.join(models)} matches {pattern!r}: "
                f"{nearest(pattern, known)}"
            )
    asked = tuple(patterns) or tuple(analysis.TAPS)
    taps = {}
    for model_name, model in models.items():
        hits = [pattern for pattern in asked if model.taps.match(pattern)]
        if analysis.TAPS and not hits:
            raise ValueError(
                f"{here}.taps: no tap of {model_name} matches any of {asked}; set it, "
                f"{nearest(asked[0], model.taps)}"
            )
        taps[model_name] = model.taps.select(hits) if hits else ()
    return taps
