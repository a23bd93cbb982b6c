"""Jobs: the analyses of a config, resolved and checked before any long work starts.

A `Job` is one analysis of named models: a pure function of the config and the data, so that a
resumed run, or another host, makes the same ones.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from vitcnn import analyses
from vitcnn.config import check_file_name
from vitcnn.data import sources
from vitcnn.engine.groups import check_group
from vitcnn.lookup import nearest
from vitcnn.model import Model, load
from vitcnn.taps import TapInfo


@dataclasses.dataclass(frozen=True)
class Job:
    """One analysis of named models, everything resolved and checked.

    Attributes:
      name: name of its result.
      analysis: module of the analysis.
      config: what `measure` and `finalize` get.
      taps: model name -> names of its taps.
      models: the models that the config names, () for all.
    """

    name: str
    analysis: ModuleType
    config: analyses.Config
    taps: Mapping[str, tuple[str, ...]]
    models: tuple[str, ...] = ()

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
        """Number of draws of the images."""
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


def load_models(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Model]:
    """Loads every model of a checked config: name -> `vitcnn.load(**fields)`."""
    return {name: load(**_plain(fields)) for name, fields in configs.items()}


def load_source(fields: Mapping[str, Any]) -> Any:
    """Opens the images of a checked config."""
    fields = _plain(fields)
    return sources.load(fields.pop("source"), **fields)


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return fields.to_dict() if hasattr(fields, "to_dict") else dict(fields)


def plan_jobs(
    models: Mapping[str, Model],
    source: Any,
    configs: Mapping[str, Mapping[str, Any]],
    group: int,
    stages: Mapping[str, Mapping[str, Any]] = {},
    where: str = "config.",
) -> list[Job]:
    """Resolves and checks the analyses of a config before any long work.

    Args:
      models: name -> model.
      source: the images.
      configs: name -> fields of an analysis, from `vitcnn.config.check_measurement`.
      group: images of a group.
      stages: what comes before: name of a stage -> its `configs`.
      where: what stands before "analyses" in messages: "config.stages.fit." for a stage.

    Raises:
      ValueError: unknown model or tap pattern (with the nearest names), a group smaller than an
        analysis needs or larger than the data, or more images than there are.
    """
    check_group(group, len(source), "the analyses")
    for name in models:
        check_file_name(name)
    if not configs:
        raise ValueError(f"{where}analyses is empty: name at least one, such as cka")
    jobs = []
    for name, fields in configs.items():
        jobs += _plan(name, dict(fields), models, source, group, stages, f"{where}analyses.{name}")
    if not jobs:
        raise ValueError("no analysis is left to run")
    return jobs


def _plan(name, fields, models, source, group, stages, here) -> list[Job]:
    """Returns the jobs of one analysis: one, or one for each model."""
    analysis = analyses.find(fields.pop("analysis", None) or name)
    traits = analyses.traits(analysis)
    selection = analyses.Selection(
        **{f.name: fields.pop(f.name) for f in _SELECTION if f.name in fields}
    )
    settings = analyses.settings(analysis, **fields)
    chosen = selection.models or tuple(models)
    for model in chosen:
        if model not in models:
            raise ValueError(f"unknown model {model!r} in {here}.models: {nearest(model, models)}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{here}.models names a model twice: {selection.models}")
    if traits.labels and not source.labelled:
        warnings.warn(f"{name} needs labels, which the data do not have: left out", stacklevel=4)
        return []
    images = _images(selection, traits, source, group, here)
    if traits.head:
        for model in chosen:
            models[model].check_classes(source)
    for field in traits.stages:
        stage = getattr(settings, field)
        if name not in stages.get(stage, {}):
            raise ValueError(
                f"{here}.{field} = {stage!r}: {name} goes on from a job of its name in that stage, "
                f"which comes before; set config.stages.{stage}.analyses.{name} as "
                "configs/analyze/everything.py does"
            )
    taps = _select(here, analysis, selection.taps, {model: models[model] for model in chosen})
    jobs = []
    for members in [(model,) for model in chosen] if traits.one_model else [chosen]:
        layers = tuple((model, tap) for model in members for tap in taps[model])
        config = analyses.Config(
            settings,
            layers,
            infos=tuple(models[model].taps[tap] for model, tap in layers),
            taps=selection.taps,
            images=images,
            repeats=selection.repeats,
            classes=source.classes,
            length=len(source),
            draws=getattr(source, "draws", 1),
        )
        label = f"{name}.{members[0]}" if traits.one_model else name
        its_taps = {model: taps[model] for model in members}
        jobs.append(Job(label, analysis, config, its_taps, selection.models))
    return jobs


_SELECTION = dataclasses.fields(analyses.Selection)


def _images(selection, traits, source, group, here) -> int:
    """Returns the number of images of one repeat."""
    if selection.repeats < 1 or (selection.images is not None and selection.images < 0):
        raise ValueError(
            f"{here}: repeats = {selection.repeats} must be at least 1, and images = "
            f"{selection.images} at least 0 (all)"
        )
    images = traits.images if selection.images is None else selection.images
    if selection.images and images > len(source):
        raise ValueError(f"{here}.images = {images}, but the data have {len(source)} images")
    images = len(source) if images == analyses.ALL else min(images, len(source))
    if min(group, images) < traits.least_group:
        raise ValueError(
            f"{here} needs groups of at least {traits.least_group} images, but config.group = "
            f"{group} and it has {images} images"
        )
    return images


def _select(here, analysis, patterns, models) -> dict[str, tuple[str, ...]]:
    """Returns the taps of each model; a pattern need not match in every model, but in one."""
    known: dict[str, TapInfo] = {}
    for model in models.values():
        known |= model.taps
    for pattern in patterns:
        if not any(model.taps.match(pattern) for model in models.values()):
            raise ValueError(
                f"{here}.taps: no tap of {', '.join(models)} matches {pattern!r}: "
                f"{nearest(pattern, known)}"
            )
    patterns = tuple(patterns) or tuple(analysis.TAPS)
    taps = {}
    for name, model in models.items():
        matching = [pattern for pattern in patterns if model.taps.match(pattern)]
        if analysis.TAPS and not matching:
            raise ValueError(
                f"{here}.taps: no tap of {name} matches any of {patterns}; set it, "
                f"{nearest(patterns[0], model.taps)}"
            )
        taps[name] = model.taps.select(matching) if matching else ()
    return taps
