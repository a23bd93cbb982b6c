"""What a config asks for, resolved and checked before any long work starts.

A `Job` is one analysis of named models: a pure function of the config and the data, so that a
resumed run, or another host, makes the same ones.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from ml_collections import ConfigDict

from vitcnn import analyses
from vitcnn.engine.config import JOB, check_file_name
from vitcnn.engine.groups import check_group
from vitcnn.lookup import check_name, nearest
from vitcnn.model import Model


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
    check_group(group, len(source), "the analyses")
    for name in [*models, *configs]:
        check_file_name(name)
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
