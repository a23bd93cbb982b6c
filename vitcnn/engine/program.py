"""The program of one group of images: forward passes, taps and every measure, one pure function."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitcnn import analyses
from vitcnn.engine.jobs import Job
from vitcnn.model import Model


def group_program(
    models: Mapping[str, Model], jobs: Sequence[Job], takes: Mapping[str, int]
) -> Callable[[Any, Any], dict[str, Any]]:
    """Returns the program of one group, (constants, batch) -> {job name: sums}.

    The constants are {"variables": {model: variables}, "given": {job name: {stage: arrays}}}. Taps
    are reduced to sums inside it, so that no activation outlives its layer.

    Args:
      models: every model of the run.
      jobs: every job of the run; those in `takes` are in the program.
      takes: job name -> number of images of the group that it takes.
    """
    jobs = [job for job in jobs if job.name in takes]
    crops = shared_crops(models)

    def view(name, variables, batch):
        model = models[name]
        wanted = {tap for job in jobs for tap in job.taps.get(name, ())}
        image = model.preprocess.normalise(batch["images"][crops[name]])
        logits, taps = model.forward(variables, image, [tap for tap in model.taps if tap in wanted])

        def forward(images, tap):
            return model.forward(variables, images, [tap])[1][tap]

        return analyses.View(image, taps, logits, {tap: model.taps[tap] for tap in taps}, forward)

    def part(view, taps, n, cache):
        return analyses.View(
            view.image[:n],
            {tap: view.taps[tap][:n] for tap in taps},
            view.logits[:n],
            {tap: view.info[tap] for tap in taps},
            view.forward,
            cache,
        )

    def program(constants, batch):
        variables, given = constants["variables"], constants["given"]
        used = [name for name in models if any(name in job.taps for job in jobs)]
        views = {name: view(name, variables[name], batch) for name in used}
        sums = {}
        caches = collections.defaultdict(dict)  # by model and number of images
        for job in jobs:
            n = takes[job.name]
            seen = {m: part(views[m], taps, n, caches[m, n]) for m, taps in job.taps.items()}
            group = analyses.Group(batch["label"][:n], batch["index"][:n], seen)
            try:
                sums[job.name] = job.analysis.measure(group, job.config, given.get(job.name, {}))
            except ValueError as error:  # while it is traced, before anything runs
                raise ValueError(f"{job.name}: {error}") from error
        return sums

    return program


def shared_crops(models: Mapping[str, Model]) -> dict[str, str]:
    """Returns for each model the first whose images are cut alike: they share that one's array."""
    first: dict[Any, str] = {}
    for name, model in models.items():
        first.setdefault(model.preprocess.cut, name)
    return {name: first[model.preprocess.cut] for name, model in models.items()}
