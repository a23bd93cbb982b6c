"""Jobs: the analyses of a config, resolved and checked before any long work starts.

A `Job` is one analysis of named models: a pure function of the config and the data, so a resumed
run, or another host, plans the same jobs.
"""

from __future__ import annotations

import dataclasses
import types
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import xarray

from vitcnn import analyses
from vitcnn.config import check_file_name
from vitcnn.config.schema import Fields
from vitcnn.data import classes as class_numbers
from vitcnn.data import sources
from vitcnn.engine.groups import check_least
from vitcnn.lookup import nearest
from vitcnn.model import Model, load

# What an analysis may need -> the attribute of a source that has it.
_SOURCE_HAS = {"boxes": "most_boxes", "cues": "cue_classes"}


@dataclasses.dataclass(frozen=True)
class Job:
    """One analysis of named models, resolved and checked.

    Attributes:
      name: name of its Result.
      analysis: module of the analysis.
      config: what `measure` and `finalize` get.
      taps: model name -> names of its taps.
      models: the models that the config names, () for all.
      classes: how the classes of the images meet those of the head or of the fit that the analysis
        compares the labels with; None for analyses that compare them with neither.
    """

    name: str
    analysis: ModuleType
    config: analyses.Config
    taps: Mapping[str, tuple[str, ...]]
    models: tuple[str, ...] = ()
    classes: class_numbers.Match | None = None

    @property
    def traits(self) -> analyses.Traits:
        """What the engine has to know of the analysis."""
        return analyses.traits(self.analysis)

    @property
    def images(self) -> int:
        """Number of images of one repeat."""
        return self.config.images

    @property
    def repeats(self) -> int:
        """How often the images are drawn; each repeat is a new random order."""
        return self.config.repeats

    @property
    def fields(self) -> dict[str, Any]:
        """All settings, for provenance."""
        return {
            "analysis": self.analysis.__name__.removeprefix(f"{analyses.__name__}."),
            "models": self.models,
            "repeats": self.repeats,
            "images": self.images,
            "taps": list(self.config.layers),
            **dataclasses.asdict(self.config.settings),
        }


def load_models(configs: Fields) -> dict[str, Model]:
    """Loads every model of a checked config: name -> `vitcnn.load(**fields)`."""
    return {name: load(**_plain(fields)) for name, fields in configs.items()}


def load_source(fields: Fields) -> Any:
    """Opens the images of a checked config."""
    fields = _plain(fields)
    return sources.load(fields.pop("source"), **fields)


def check_source(source: Any) -> None:
    """Raises ValueError unless an object has what every source of images has."""
    needed = ("__len__", "__getitem__", "labelled", "classes", "provenance")
    missing = [name for name in needed if not hasattr(source, name)]
    if missing:
        raise ValueError(
            f"the images are {type(source).__name__}, which has no {', '.join(missing)}: expected "
            "a source such as vitcnn.data.load returns, or an object with the attributes that the "
            "docstring of vitcnn.data.sources lists"
        )


def continued(
    jobs: Sequence[Job], earlier: Mapping[str, Mapping[str, xarray.Dataset]]
) -> dict[str, dict[str, xarray.Dataset]]:
    """Returns job name -> stage -> Result from which the job continues.

    Args:
      jobs: of one pass.
      earlier: stage -> job name -> Result, of the passes before it.
    """
    return {
        job.name: {s: of_stage[job.name] for s, of_stage in earlier.items() if job.name in of_stage}
        for job in jobs
        if job.traits.stages
    }


def plan_jobs(
    models: Mapping[str, Model],
    source: Any,
    configs: Fields,
    group: int,
    stages: Fields = types.MappingProxyType({}),
    where: str = "config.",
    stage_sources: Mapping[str, Any] = types.MappingProxyType({}),
) -> list[Job]:
    """Resolves and checks the analyses of a config before any long work.

    Args:
      models: name -> model.
      source: the images.
      configs: name -> fields of an analysis, from `vitcnn.config.check_measurement`.
      group: number of images in a group.
      stages: name of an earlier stage -> its `configs`.
      where: what precedes "analyses" in messages: "config.stages.fit." for a stage.
      stage_sources: name of an earlier stage -> its images.

    Raises:
      ValueError: unknown model or tap pattern (with the nearest names), a group smaller than an
        analysis needs, or more images than the source has.
    """
    for name in models:
        check_file_name(name)
    if not configs:
        raise ValueError(f"{where}analyses is empty: name at least one, such as cka")
    jobs = []
    for name, fields in configs.items():
        request = _Request.parse(name, fields, f"{where}analyses.{name}")
        jobs += _plan(request, models, source, group, stages, stage_sources)
    if not jobs:
        raise ValueError("no analysis is left to run")
    return jobs


@dataclasses.dataclass(frozen=True)
class _Request:
    """One analysis as the config asks for it, not yet resolved.

    Attributes:
      name: its name in the config.
      where: path of its fields in the config, for messages.
      analysis: module of the analysis.
      selection: the models, taps and images that the config names.
      settings: the analysis's own settings.
    """

    name: str
    where: str
    analysis: ModuleType
    selection: analyses.Selection
    settings: Any

    @property
    def traits(self) -> analyses.Traits:
        return analyses.traits(self.analysis)

    @classmethod
    def parse(cls, name: str, fields: Fields, where: str) -> _Request:
        fields = dict(fields)
        analysis = analyses.find(fields.pop("analysis", None) or name)
        shared = [f.name for f in dataclasses.fields(analyses.Selection) if f.name in fields]
        selection = analyses.Selection(**{field: fields.pop(field) for field in shared})
        return cls(name, where, analysis, selection, analyses.settings(analysis, **fields))


def _plan(request: _Request, models, source, group, stages, stage_sources) -> list[Job]:
    """Returns the jobs of one analysis: one of all its models, or one for each model."""
    models = _models(request, models)
    if request.traits.labels and not source.labelled:
        message = f"{request.name} needs labels, which the data do not have: left out"
        warnings.warn(message, stacklevel=4)
        return []
    missing = [n for n in request.traits.needs if not getattr(source, _SOURCE_HAS[n], None)]
    if missing:
        message = (
            f"{request.name} needs {' and '.join(missing)}, which the data do not have: left out"
        )
        warnings.warn(message, stacklevel=4)
        return []
    images = _images(request, source, group)
    _check_stages(request, stages)
    met = {name: _match(request, model, source, stage_sources) for name, model in models.items()}
    taps = _taps(request, models)
    if request.traits.one_model:
        return [
            _job(
                f"{request.name}.{model}",
                request,
                {model: taps[model]},
                models,
                source,
                images,
                met[model],
            )
            for model in models
        ]
    return [_job(request.name, request, taps, models, source, images, None)]


def _match(
    request: _Request, model: Model, source: Any, stage_sources: Mapping[str, Any]
) -> class_numbers.Match | None:
    """Returns how the classes of the images meet those of the head, or of the stage of the fit.

    Raises:
      ValueError: they do not fit.
    """
    if request.traits.head:
        return model.check_classes(source)
    if not request.traits.labels:
        return None
    if source.classes is None:
        raise ValueError(
            f"{request.where} needs the number of classes, but the source has labels and "
            "`classes` = None: set `classes` to the number of classes"
        )
    match = None
    for field in request.traits.stages:
        fit = stage_sources[getattr(request.settings, field)]
        if fit is not source:
            mismatch = (
                f"the images here have {source.classes} classes, those of the fit {fit.classes}; "
                "use data of the same classes for both"
            )
            pair = class_numbers.of(source), class_numbers.of(fit)
            match = class_numbers.match(*pair, "the classes of the fit", mismatch)
    return match


def _job(name: str, request: _Request, taps, models, source, images: int, match) -> Job:
    layers = tuple((model, tap) for model in taps for tap in taps[model])
    config = analyses.Config(
        request.settings,
        layers,
        infos=tuple(models[model].taps[tap] for model, tap in layers),
        taps=request.selection.taps,
        images=images,
        repeats=request.selection.repeats,
        classes=match.count if match and match.numbers else source.classes,
        length=len(source),
        draws=getattr(source, "draws", 1),
        most_boxes=getattr(source, "most_boxes", 0),
        cue_classes=tuple(getattr(source, "cue_classes", {}).items()),
    )
    return Job(name, request.analysis, config, taps, request.selection.models, match)


def _models(request: _Request, models: Mapping[str, Model]) -> dict[str, Model]:
    """Returns the models of an analysis, in the order of its config."""
    names = request.selection.models or tuple(models)
    for name in names:
        if name not in models:
            raise ValueError(
                f"unknown model {name!r} in {request.where}.models: {nearest(name, models)}"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"{request.where}.models names a model twice: {names}")
    return {name: models[name] for name in names}


def _images(request: _Request, source: Any, group: int) -> int:
    """Returns the number of images of one repeat."""
    selection, traits, where = request.selection, request.traits, request.where
    if selection.repeats < 1 or (selection.images is not None and selection.images < 0):
        raise ValueError(
            f"{where}: repeats = {selection.repeats} must be at least 1, and images = "
            f"{selection.images} at least 0 (0 takes all)"
        )
    images = traits.images if selection.images is None else selection.images
    if selection.images and images > len(source):
        raise ValueError(f"{where}.images = {images}, but the data have {len(source)} images")
    images = len(source) if images == analyses.ALL else min(images, len(source))
    check_least(group, images, where, traits.least_group, "config.group")
    return images


def _check_stages(request: _Request, stages: Fields) -> None:
    """Raises ValueError unless the stages that an analysis continues from come before it."""
    name = request.name
    for field in request.traits.stages:
        stage = getattr(request.settings, field)
        if name not in stages.get(stage, {}):
            raise ValueError(
                f"{request.where}.{field} = {stage!r}: {name} continues from the job {name} of "
                f"that stage, which has to come first; set config.stages.{stage}.analyses.{name} "
                "as configs/analyze/everything.py does"
            )


def _taps(request: _Request, models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    """Returns the taps of each model; a pattern has to match in at least one of the models."""
    every_tap = [tap for model in models.values() for tap in model.taps]
    for pattern in request.selection.taps:
        if not any(model.taps.match(pattern) for model in models.values()):
            reasons = [model.taps.reason(pattern) for model in models.values()]
            hint = next(filter(None, reasons), nearest(pattern, dict.fromkeys(every_tap)))
            raise ValueError(
                f"{request.where}.taps: no tap of {', '.join(models)} matches {pattern!r}: {hint}"
            )
    default = request.analysis.TAPS
    patterns = request.selection.taps or default
    taps = {}
    for name, model in models.items():
        matching = [pattern for pattern in patterns if model.taps.match(pattern)]
        if default and not matching:
            raise ValueError(
                f"{request.where}.taps: no tap of {name} matches any of {patterns}; name taps that "
                f"it has: {nearest(patterns[0], model.taps)}"
            )
        taps[name] = model.taps.select(matching) if matching else ()
    return taps


def _plain(fields: Fields) -> dict[str, Any]:
    return fields.to_dict() if hasattr(fields, "to_dict") else dict(fields)
