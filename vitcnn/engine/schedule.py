"""Which images each group takes: `Span`s, a pure function of the jobs.

A resumed run, or another host, makes the same ones.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from vitcnn.engine.jobs import Job


@dataclasses.dataclass(frozen=True)
class Span:
    """One group of one repeat: where its images are, and how many of them each job takes."""

    repeat: int
    group: int
    start: int
    stop: int
    takes: tuple[tuple[str, int], ...]

    @property
    def shape(self) -> tuple:
        """Spans of one shape share a compiled program."""
        return self.stop - self.start, self.takes


def plan_spans(jobs: Sequence[Job], group: int) -> list[Span]:
    """Returns every group of every repeat, in order."""
    spans = []
    for repeat in range(max(job.repeats for job in jobs)):
        active = [job for job in jobs if repeat < job.repeats]
        images = max(job.images for job in active)
        for k, start in enumerate(range(0, images, group)):
            stop = min(start + group, images)
            takes = {job.name: min(job.images, stop) - start for job in active}
            for job in active:
                if 0 < takes[job.name] < job.traits.least_group:
                    warnings.warn(
                        f"{job.name}: the last {takes[job.name]} of {job.images} images are left "
                        f"out, it needs groups of at least {job.traits.least_group}",
                        stacklevel=2,
                    )
                    takes[job.name] = 0
            takes = tuple((name, n) for name, n in takes.items() if n > 0)
            if takes:
                spans.append(Span(repeat, k, start, start + max(n for _, n in takes), takes))
    return spans
