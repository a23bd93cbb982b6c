"""Stream: one pass over the images that runs every job, resumes, and ends in Results.

This is the only file that knows of rounds of groups, of resuming, of the memory budget and of the
progress bar. Sums are added in float64 in group order, so a run that was killed and resumed, or
that was spread over devices, ends with the same bits as a run that was not.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
import xarray

from vitcnn import data, parallel
from vitcnn.config import Measurement
from vitcnn.config.schema import Fields
from vitcnn.data import pool
from vitcnn.engine.clock import Clock
from vitcnn.engine.jobs import Job
from vitcnn.engine.program import group_program, shared_crops
from vitcnn.engine.progress import Progress
from vitcnn.engine.schedule import Slice, plan_schedule
from vitcnn.engine.sums import BLOCKS, Sums, estimate
from vitcnn.model import Model
from vitcnn.numerics.exact import host_shapes

_MOST_KEPT = 10**9  # bytes of images that are kept for the next pass over them


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings that all passes of a run share; `vitcnn.config.Measurement` explains them."""

    group: int = Measurement.group
    seed: int = Measurement.seed
    precision: str = Measurement.precision
    max_sums_gb: float = Measurement.max_sums_gb
    save_every_s: float = Measurement.save_every_s
    threads: int = Measurement.threads
    workers: int = Measurement.workers
    prefetch: int = Measurement.prefetch

    @classmethod
    def of(cls, config: Fields) -> RunSettings:
        """Returns the settings of a checked config."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})


def measure(
    models: Mapping[str, Model],
    source: Any,
    jobs: Sequence[Job],
    settings: RunSettings,
    *,
    earlier: Mapping[str, Mapping[str, xarray.Dataset]] = {},
    progress_file: Any = None,
    show_progress: bool = True,
    kept: dict[str, Any] | None = None,
    clock: Clock | None = None,
) -> dict[str, xarray.Dataset]:
    """Runs every job in one pass over the images.

    Args:
      models: name -> model.
      source: the images, see `vitcnn.data`.
      jobs: from `plan_jobs`.
      settings: the settings of the run.
      earlier: job name -> stage -> Result of that earlier stage, which the job continues from.
      progress_file: path of the file that the run resumes from; None for a run in memory.
      show_progress: whether to show a bar with rate and ETA.
      kept: an empty dictionary, which the first call fills with compiled programs, and with the
        images if they are at most 1 GB; later calls with the same arguments, but for the values of
        the variables of the models, take them from there. None keeps nothing.
      clock: is started when the first round is on the devices, and counts how long they wait for
        images after that.

    Returns:
      Job name -> Result, with standard errors, without provenance.

    Raises:
      ValueError: the sums need more memory than max_sums_gb.
    """
    schedule = plan_schedule(jobs, settings.group)
    models = {name: m for name, m in models.items() if any(name in job.taps for job in jobs)}
    constants = {
        "variables": {name: model.variables for name, model in models.items()},
        "earlier": {
            job: {stage: arrays(result) for stage, result in stages.items()}
            for job, stages in earlier.items()
        },
    }
    keeps_images = kept is not None
    kept = {} if kept is None else kept
    if not kept:
        for job in jobs:
            if show_progress and hasattr(job.analysis, "forwards"):
                passes = job.analysis.forwards(job.config)
                images = job.images * job.repeats
                tqdm.tqdm.write(f"{job.name}: {passes} more forward passes of {images} images")
        compiled = _programs(models, jobs, schedule, constants, settings.precision)
        kept |= dict(zip(("programs", "shapes"), compiled, strict=True))
        _check_bytes(jobs, kept["shapes"], len(schedule), settings.max_sums_gb, show_progress)
    programs, sum_shapes = kept["programs"], kept["shapes"]
    progress = Progress({job.name: job.traits.blocks for job in jobs}, progress_file)
    progress.resume(sum_shapes)
    slices = _slices_of_this_host(schedule)
    done, remaining = slices[: progress.groups_done], slices[progress.groups_done :]
    bar = tqdm.tqdm(
        total=sum(s.images for s in slices),
        initial=sum(s.images for s in done),
        unit=" images",
        desc="measuring",
        disable=not show_progress,
        smoothing=0.1,
    )
    last_save = time.monotonic()
    batches = kept.get("batches") or _batches(models, source, jobs, remaining, settings)
    if keeps_images and "batches" not in kept and _bytes_of_images(models, slices) <= _MOST_KEPT:
        batches = _keeping(batches, kept)
    clock = clock or Clock()
    for slice_, device_sums in _run_groups(programs, constants, remaining, batches, clock):
        progress.add(slice_, device_sums)
        bar.update(slice_.images)
        if time.monotonic() - last_save > settings.save_every_s:
            progress.save()
            last_save = time.monotonic()
    if remaining:
        progress.save()
    bar.close()
    if show_progress and remaining:
        tqdm.tqdm.write(f"waited for images: {clock.share:.0%} of the time")
    sums = progress.sums_of_all_hosts(sum_shapes)
    return {job.name: _finalize(job, sums[job.name]) for job in jobs}


def trace(
    models: Mapping[str, Model], jobs: Sequence[Job], settings: RunSettings
) -> dict[str, Any]:
    """Traces the jobs that do not continue from a stage, without running anything.

    Returns:
      The argument `kept` of `measure` for these models and jobs, which is empty if a job continues
      from a stage.

    Raises:
      ValueError: whatever an analysis refuses while it is traced, in a whole group or in the last
        one; or the sums need more memory than max_sums_gb.
    """
    first = [job for job in jobs if not job.traits.stages]
    if not first:
        return {}
    schedule = plan_schedule(first, settings.group)
    constants = {"variables": {name: m.variables for name, m in models.items()}, "earlier": {}}
    programs, shapes = _programs(models, first, schedule, constants, settings.precision)
    _check_bytes(first, shapes, len(schedule), settings.max_sums_gb, show=False)
    return {"programs": programs, "shapes": shapes} if len(first) == len(jobs) else {}


def arrays(result: xarray.Dataset) -> dict[str, np.ndarray]:
    """Returns the numbers of a Result as the device gets them: float32 and int32, by variable."""
    device_types = {"f": np.float32, "i": np.int32}
    return {
        str(name): variable.values.astype(device_types[variable.dtype.kind])
        for name, variable in result.data_vars.items()
        if variable.dtype.kind in device_types and not str(name).endswith("_standard_error")
    }


def _slices_of_this_host(schedule: Sequence[Slice]) -> list[Slice]:
    """Returns this host's part of the schedule.

    A host owns whole blocks of groups, so every block is summed in one place and in order.
    """
    process, processes = parallel.host()
    return [s for s in schedule if s.group % BLOCKS % processes == process]


def _programs(models, jobs, schedule, constants, precision):
    """Traces one slice of each shape; returns programs by shape, and shapes of host sums by job."""
    programs, sum_shapes = {}, {}
    for slice_ in {s.shape: s for s in schedule}.values():
        function = group_program(models, jobs, dict(slice_.images_per_job))
        program = parallel.GroupProgram(function, precision)
        programs[slice_.shape] = program
        sum_shapes |= host_shapes(
            program.shapes(constants, batch_shapes(models, jobs, slice_.images))
        )
    return programs, sum_shapes


def _needs(jobs: Sequence[Job]) -> set[str]:
    """Returns what the jobs read of an image besides its pixels and its label."""
    return {need for job in jobs for need in job.traits.needs}


def batch_shapes(models: Mapping[str, Model], jobs: Sequence[Job], n: int) -> dict[str, Any]:
    """Returns the shapes of what `_batches` yields for n images."""
    images = {
        name: jax.ShapeDtypeStruct((n, *models[name].image_size, 3), np.uint8)
        for name in shared_crops(models).values()
    }
    integers = jax.ShapeDtypeStruct((n,), np.int32)
    shapes = {"images": images, "label": integers, "index": integers}
    needs, config = _needs(jobs), jobs[0].config  # every job of a pass has the same source
    if "boxes" in needs:
        boxes = jax.ShapeDtypeStruct((n, config.most_boxes, 4), np.float32)
        shapes["boxes"] = dict.fromkeys(images, boxes)
    if "cues" in needs:
        shapes["cues"] = {cue: integers for cue, _ in config.cue_classes}
    return shapes


def _batches(models, source, jobs, slices, settings) -> Iterator[dict[str, Any]]:
    """Yields the images of each slice; see `vitcnn.data.groups`."""
    preprocesses = {name: models[name].preprocess for name in shared_crops(models).values()}
    most = max(job.images for job in jobs)
    repeats = {s.repeat for s in slices}
    orders = {repeat: data.order(len(source), most, settings.seed, repeat) for repeat in repeats}
    indices = [orders[s.repeat][s.start : s.stop] for s in slices]
    return data.groups(
        source,
        preprocesses,
        indices,
        needs=_needs(jobs),
        **pool.of_config(settings),
    )


def _bytes_of_images(models: Mapping[str, Model], slices: Sequence[Slice]) -> int:
    """Returns the memory of all images of some slices."""
    shapes = [models[name].image_size for name in shared_crops(models).values()]
    return 3 * sum(map(math.prod, shapes)) * sum(slice_.images for slice_ in slices)


def _keeping(batches: Iterable[Any], kept: dict[str, Any]) -> Iterator[Any]:
    """Yields batches, and keeps them once all have been read."""
    read = []
    for batch in batches:
        read.append(batch)
        yield batch
    kept["batches"] = read


def _run_groups(
    programs, constants, slices, batches, clock
) -> Iterator[tuple[Slice, dict[str, Any]]]:
    """Yields (slice, sums by job name) in order, while the devices work on the next round."""
    if slices:
        constants = parallel.on_devices(constants)
    rounds = _rounds(slices, batches)
    running, current = [], None  # the slices of the round that the devices compute
    while True:
        with clock.waiting(lambda: current is not None and current.is_ready()):
            members, inputs = next(rounds, ([], []))
        following = programs[members[0].shape](constants, inputs) if members else None
        if current is None:
            clock.restart()
        else:
            yield from zip(running, current(), strict=True)
        if following is None:
            return
        running, current = members, following


def _rounds(slices: Sequence[Slice], batches: Iterable) -> Iterator[tuple[list[Slice], list[Any]]]:
    """Yields (slices, batches) of consecutive groups of one shape, at most one for each device."""
    members, inputs = [], []
    for slice_, batch in zip(slices, batches, strict=True):
        if members and members[0].shape != slice_.shape:
            yield members, inputs
            members, inputs = [], []
        members.append(slice_)
        inputs.append(batch)
        if len(members) == parallel.width():  # now, and not when the next group has been loaded
            yield members, inputs
            members, inputs = [], []
    if members:
        yield members, inputs


def _finalize(job: Job, sums: Sums) -> xarray.Dataset:
    """Returns the Result of a job; the attribute `warnings` lists what its analysis warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = estimate(sums, lambda total: job.analysis.finalize(total, job.config))
    messages = [str(w.message) for w in caught]
    for message in messages:
        warnings.warn(f"{job.name}: {message}", stacklevel=3)
    return result.assign_attrs(warnings=messages) if messages else result


def _check_bytes(jobs, sum_shapes, groups: int, max_sums_gb: float, show: bool) -> None:
    """Prints the size of all sums on the host and raises ValueError if it is over the budget."""
    sizes = {}
    for job in jobs:
        blocks = min(job.traits.blocks * (1 + (job.repeats > 1)), groups)
        # Twice the blocks: they are saved from a copy, and have running totals while the standard
        # errors are computed. Two rounds of float32 sums: one is added up while one is computed.
        # And the float64 sums of the group that is added.
        copies = 2 * blocks + parallel.width() + 1
        leaves = jax.tree.leaves(sum_shapes[job.name])
        sizes[job.name] = 8 * copies * sum(math.prod(leaf.shape) for leaf in leaves)
    total = sum(sizes.values())
    listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    if show:
        tqdm.tqdm.write(f"sums on the host: {listed}")
    if total > max_sums_gb * 1e9:
        raise ValueError(
            f"the sums need {total / 1e9:.2f} GB ({listed}), more than config.max_sums_gb = "
            f"{max_sums_gb:g}; choose fewer taps, split them over "
            f"{math.ceil(total / (max_sums_gb * 1e9))} passes, or raise config.max_sums_gb"
        )
