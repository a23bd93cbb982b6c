"""The schedule: which images each group takes, as `Slice`s of the image order.

Jobs that measure few of the images have slices of their own, which come first. Their images pass
through the networks once more, and the program of the other jobs is compiled once instead of twice:
with these jobs in it and without them.

The schedule is a pure function of the jobs and the group size, so a resumed run, or another host,
plans the same one.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

from vitcnn.engine.jobs import Job


@dataclasses.dataclass(frozen=True)
class Slice:
    """One group of images.

    Attributes:
      repeat: the repeat that the group belongs to.
      group: number of the group within its repeat.
      start, stop: where the group lies in the image order of its repeat.
      images_per_job: (job name, n) pairs; the job measures the first n images of the group. Other
        slices may have the same group for other jobs.
    """

    repeat: int
    group: int
    start: int
    stop: int
    images_per_job: tuple[tuple[str, int], ...]

    @property
    def images(self) -> int:
        """Number of images in the group."""
        return self.stop - self.start

    @property
    def shape(self) -> tuple:
        """Slices of one shape share a compiled program."""
        return self.images, self.images_per_job


# Jobs of at most this share of the images have slices of their own.
_FEW = 1 / 8


def plan_schedule(jobs: Sequence[Job], group: int) -> list[Slice]:
    """Returns every group of every repeat, in order; a UserWarning names images that are left out.

    Args:
      jobs: all jobs of the pass.
      group: number of images in a whole group.
    """
    schedule = []
    for repeat in range(max(job.repeats for job in jobs)):
        active = [job for job in jobs if repeat < job.repeats]
        most = max(job.images for job in active)
        few = sorted({job.images for job in active if job.images <= _FEW * most})
        parts = [[job for job in active if job.images == images] for images in few]
        parts.append([job for job in active if job.images not in few])
        for part in parts:
            schedule += _slices(part, group, repeat)
    return schedule


def _slices(jobs: Sequence[Job], group: int, repeat: int) -> Iterator[Slice]:
    """Yields the groups of one repeat for some of its jobs."""
    images = max(job.images for job in jobs)
    for k, start in enumerate(range(0, images, group)):
        stop = min(start + group, images)
        counts = {job.name: min(job.images, stop) - start for job in jobs}
        for job in jobs:
            if 0 < counts[job.name] < job.traits.least_group:
                warnings.warn(
                    f"{job.name}: the last {counts[job.name]} of {job.images} images are left "
                    f"out, because it needs groups of at least {job.traits.least_group}",
                    stacklevel=3,
                )
                counts[job.name] = 0
        images_per_job = tuple((name, n) for name, n in counts.items() if n > 0)
        if images_per_job:
            stop = start + max(n for _, n in images_per_job)
            yield Slice(repeat, k, start, stop, images_per_job)
