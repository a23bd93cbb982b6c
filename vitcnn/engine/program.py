"""The program of one group of images: forward passes, taps and every measure, one pure function."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from vitcnn import analyses
from vitcnn.engine.jobs import Job
from vitcnn.model import Model
from vitcnn.numerics.arrays import Array


def group_program(
    models: Mapping[str, Model], jobs: Sequence[Job], images_per_job: Mapping[str, int]
) -> Callable[[Any, Any], dict[str, Any]]:
    """Returns the program of one group, (constants, batch) -> {job name: sums}.

    The constants are {"variables": {model: variables}, "earlier": {job name: {stage: arrays}}}; the
    batch is what `vitcnn.data.groups` yields. Taps are reduced to sums inside the program, so that
    no activation outlives its layer.

    Args:
      models: every model of the run.
      jobs: every job of the run; the program contains those in `images_per_job`.
      images_per_job: job name -> n; the job measures the first n images of the group.
    """
    jobs = [job for job in jobs if job.name in images_per_job]
    array_owner = shared_crops(models)

    def whole_view(name, variables, batch):
        model = models[name]
        wanted = {tap for job in jobs for tap in job.taps.get(name, ())}
        images = model.preprocess.normalise(batch["images"][array_owner[name]])
        names = [tap for tap in model.taps if tap in wanted]
        logits, taps = model.forward(variables, images, names)

        forward = functools.partial(model.forward, variables)

        info = {tap: model.taps[tap] for tap in taps}
        boxes = batch.get("boxes", {}).get(array_owner[name])
        return analyses.View(images, taps, logits, info, forward, boxes=boxes)

    def job_view(view, taps, n, cache):
        whole = len(view.image)
        cut = lambda x: x[:n] if jnp.shape(x)[:1] == (whole,) else x  # noqa: E731
        return analyses.View(
            view.image[:n],
            {tap: view.taps[tap][:n] for tap in taps},
            jax.tree.map(cut, view.logits),
            {tap: view.info[tap] for tap in taps},
            view.forward,
            cache,
            None if view.boxes is None else view.boxes[:n],
        )

    def program(constants, batch):
        variables, earlier = constants["variables"], constants["earlier"]
        used = [name for name in models if any(name in job.taps for job in jobs)]
        whole = {name: whole_view(name, variables[name], batch) for name in used}
        sums = {}
        caches = collections.defaultdict(dict)  # by model and number of images
        for job in jobs:
            n = images_per_job[job.name]
            views = {
                model: job_view(whole[model], taps, n, caches[model, n])
                for model, taps in job.taps.items()
            }
            label = _label(batch["label"][:n], job)
            cues = {cue: of[:n] for cue, of in batch.get("cues", {}).items()}
            group = analyses.Group(label, batch["index"][:n], views, cues)
            try:
                sums[job.name] = job.analysis.measure(group, job.config, earlier.get(job.name, {}))
            except ValueError as error:  # raised while tracing, before anything runs
                raise ValueError(f"{job.name}: {error}") from error
        return sums

    return program


def _label(label: Int[Array, " n"], job: Job) -> Int[Array, " n"]:
    """Returns labels as numbers of the classes that the job compares them with."""
    if job.classes is None or job.classes.numbers is None:
        return label
    numbers = jnp.array(job.classes.numbers, jnp.int32)
    return jnp.where(label >= 0, numbers[jnp.maximum(label, 0)], -1)


def shared_crops(models: Mapping[str, Model]) -> dict[str, str]:
    """Maps each model to the first with the same resize and crop; they share one pixel array."""
    first: dict[Any, str] = {}
    for name, model in models.items():
        first.setdefault(model.preprocess.cut, name)
    return {name: first[model.preprocess.cut] for name, model in models.items()}
