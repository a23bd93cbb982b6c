"""Stream: one pass over the images that runs every job, resumes, and ends in Results.

Groups and repeats, devices and hosts, blocks and error bars, resuming, the byte budget and progress
are here and only here. Sums are added in float64 in group order, so a run that was killed and
resumed, or was spread over devices, ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
import xarray

from vitcnn import data, parallel
from vitcnn.config import Measurement
from vitcnn.engine.jobs import Job
from vitcnn.engine.program import group_program, shared_crops
from vitcnn.engine.progress import State
from vitcnn.engine.schedule import Span, plan_spans
from vitcnn.engine.sums import BLOCKS, Sums, estimate
from vitcnn.model import Model
from vitcnn.numerics.exact import host_shapes, to_host


def measure(
    models: Mapping[str, Model],
    source: Any,
    jobs: Sequence[Job],
    *,
    group: int = Measurement.group,
    seed: int = Measurement.seed,
    precision: str = Measurement.precision,
    max_sums_gb: float = Measurement.max_sums_gb,
    save_every_s: float = Measurement.save_every_s,
    given: Mapping[str, Mapping[str, xarray.Dataset]] = {},
    state: Any = None,
    progress: bool = True,
) -> dict[str, xarray.Dataset]:
    """Runs every job in one pass over the images.

    Args:
      models: name -> model.
      source: the images, see `vitcnn.data`.
      jobs: from `plan_jobs`.
      group, seed, precision, max_sums_gb, save_every_s: see `vitcnn.config.Measurement`.
      given: name of a job -> stage -> Result of an earlier stage that it goes on from.
      state: path of the file that the run resumes from; None for a run in memory.
      progress: whether to show progress with rate and ETA.

    Returns:
      Name of the job -> result, with standard errors, without provenance.

    Raises:
      ValueError: the sums need more memory than max_sums_gb.
    """
    process, processes = parallel.host()
    spans = plan_spans(jobs, group)
    # A host owns whole blocks of groups, so that every block is summed in one place and in order.
    mine = [s for s in spans if s.group % BLOCKS % processes == process]
    models = {n: m for n, m in models.items() if any(n in job.taps for job in jobs)}
    needed = {
        name: models[name].preprocess for name in dict.fromkeys(shared_crops(models).values())
    }
    constants = {
        "variables": {name: model.variables for name, model in models.items()},
        "given": {job: {s: arrays(r) for s, r in found.items()} for job, found in given.items()},
    }
    programs, shapes = _programs(models, jobs, spans, constants, precision)
    _check_bytes(jobs, shapes, len(spans), max_sums_gb, progress)
    here = State({job.name: job.traits.blocks for job in jobs}, state)
    here.resume(shapes)
    done = sum(s.stop - s.start for s in mine[: here.next])
    total = sum(s.stop - s.start for s in mine)
    todo = mine[here.next :]
    most = max(job.images for job in jobs)
    order = {r: data.order(len(source), most, seed, r) for r in {span.repeat for span in todo}}
    batches = data.groups(source, needed, [order[s.repeat][s.start : s.stop] for s in todo])
    constants = parallel.on_devices(constants) if todo else None
    width = parallel.width()
    bar = tqdm.tqdm(
        total=total,
        initial=done,
        unit=" images",
        desc="measuring",
        disable=not progress,
        smoothing=0.1,
    )
    saved = time.monotonic()
    pending = None

    def settle(pending):
        wait, members = pending
        for span, outputs in zip(members, wait(), strict=True):
            for name, n in span.takes:
                here.sums[name].add(to_host(outputs[name]), n, span.group, span.repeat)
            here.next += 1
            bar.update(span.stop - span.start)

    for members, loaded in _rounds(todo, batches, width):
        wait = programs[members[0].shape](constants, loaded)
        if pending:  # the devices work on this round while the host adds up the last
            settle(pending)
            if time.monotonic() - saved > save_every_s:
                here.save()
                saved = time.monotonic()
        pending = (wait, members)
    if pending:
        settle(pending)
        here.save()
    bar.close()
    sums = here.meet(shapes)
    return {job.name: _finalize(job, sums[job.name]) for job in jobs}


def _finalize(job: Job, sums: Sums) -> xarray.Dataset:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = estimate(sums, lambda total: job.analysis.finalize(total, job.config))
    messages = [str(w.message) for w in caught]
    for message in messages:
        warnings.warn(f"{job.name}: {message}", stacklevel=3)
    return result.assign_attrs(warnings=messages) if messages else result


def trace(
    models: Mapping[str, Model],
    jobs: Sequence[Job],
    group: int,
    max_sums_gb: float = Measurement.max_sums_gb,
) -> None:
    """Traces the jobs that go on from no stage, without running anything.

    Raises:
      ValueError: what does not fit, as an analysis says when it is traced, in a whole group or in a
        last one; or the sums need more memory than max_sums_gb.
    """
    jobs = [job for job in jobs if not job.traits.stages]
    if jobs:
        spans = plan_spans(jobs, group)
        variables = {name: model.variables for name, model in models.items()}
        _, shapes = _programs(models, jobs, spans, {"variables": variables, "given": {}})
        _check_bytes(jobs, shapes, len(spans), max_sums_gb, progress=False)


def _programs(models, jobs, spans, constants, precision=Measurement.precision):
    """Traces a span of each shape; returns the programs by shape, and the host sums by job."""
    programs, shapes = {}, {}
    needed = dict.fromkeys(shared_crops(models).values())
    for span in {span.shape: span for span in spans}.values():
        function = group_program(models, jobs, dict(span.takes))
        programs[span.shape] = parallel.GroupProgram(function, precision)
        sums = programs[span.shape].shapes(constants, _batch_shape(models, needed, span))
        shapes |= host_shapes(sums)
    return programs, shapes


def arrays(result: xarray.Dataset) -> dict[str, np.ndarray]:
    """Returns the numbers of a Result as the device gets them: float32 and int32, by variable."""
    kinds = {"f": np.float32, "i": np.int32}
    return {
        str(name): variable.values.astype(kinds[variable.dtype.kind])
        for name, variable in result.data_vars.items()
        if variable.dtype.kind in kinds and not str(name).endswith("_standard_error")
    }


def _rounds(spans: Sequence[Span], batches: Iterator, size: int):
    """Yields (spans, batches) of up to `size` consecutive groups of one shape."""
    members, loaded = [], []
    for span, batch in zip(spans, batches, strict=True):
        if members and (len(members) == size or members[0].shape != span.shape):
            yield members, loaded
            members, loaded = [], []
        members.append(span)
        loaded.append(
            {
                "images": batch["images"],
                "label": batch["label"],
                "index": batch["index"].astype(np.int32),
            }
        )
    if members:
        yield members, loaded


def _batch_shape(models, needed, span):
    n = span.stop - span.start
    images = {
        name: jax.ShapeDtypeStruct((n, *models[name].image_size, 3), np.uint8) for name in needed
    }
    scalar = jax.ShapeDtypeStruct((n,), np.int32)
    return {"images": images, "label": scalar, "index": scalar}


def _check_bytes(jobs, shapes, groups, max_sums_gb, progress) -> None:
    """Prints the size of all sums on the host and refuses what is over the budget."""
    sizes = {}
    for job in jobs:
        blocks = min(job.traits.blocks * (1 + (job.repeats > 1)), groups)
        # Twice the blocks: they are saved from a copy, and have running totals while the errors are
        # worked out. Two rounds of float32 sums, one being added up and one under way. And the
        # float64 sums of the group that is added.
        copies = 2 * blocks + parallel.width() + 1
        leaves = jax.tree.leaves(shapes[job.name])
        sizes[job.name] = 8 * copies * sum(math.prod(leaf.shape) for leaf in leaves)
    total = sum(sizes.values())
    listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    if progress:
        tqdm.tqdm.write(f"sums on the host: {listed}")
    if total > max_sums_gb * 1e9:
        raise ValueError(
            f"the sums need {total / 1e9:.2f} GB ({listed}), more than config.max_sums_gb = "
            f"{max_sums_gb:g}; choose fewer taps, or split them over "
            f"{math.ceil(total / (max_sums_gb * 1e9))} passes, or raise it"
        )
