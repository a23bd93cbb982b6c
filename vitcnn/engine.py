"""The engine: runs any analyses of any models over the images, once, and saves the results.

What analyses share is here and only here: groups and repeats, devices and hosts, blocks and error
bars, resuming, the byte budget, progress. A group of images is a pure function of (config, seed,
repeat, k), and sums are added in float64 in group order, so a run that was killed and resumed, or
was spread over devices, ends with the same bits as one that was not.
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

from vitcnn import data, parallel, results
from vitcnn.model import Model
from vitcnn.plan import CONFIG, NEUTRAL, Job, Span, check_config, load_models, plan_jobs, plan_spans
from vitcnn.program import bringers, group_program
from vitcnn.state import State
from vitcnn.sums import BLOCKS, Sums, estimate, host_shapes, to_host


def analyze(
    config: Any,
    workdir: Any,
    *,
    models: Mapping[str, Model] | None = None,
    source: Any = None,
    progress: bool = True,
) -> dict[str, xarray.Dataset]:
    """Loads models and data, runs every analysis of a config in one pass, and saves the results.

    A run that was stopped at any moment goes on where it was when it is started again with the same
    config and workdir, and a finished one is read back.

    Args:
      config: fields of `vitcnn.plan.CONFIG`; `configs/analyze/` has examples.
      workdir: folder for <analysis>.nc, run.json and the state that a stopped run resumes from.
      models: ready models by name, such as a user's own, beside those of `config.models`.
      source: ready images, in place of `config.data`.
      progress: whether to show progress with rate and ETA.

    Returns:
      Name of the analysis -> Dataset. An analysis of one model at a time is named
      <analysis>.<model>. On many hosts, host 0 writes the files and every host gets the Datasets
      (from a run that was finished before, only the hosts that see the files).

    Raises:
      ValueError: anything in the config that is unknown or does not fit, named, with the nearest
        right choice; or a workdir that belongs to another config or other weights.
      OSError: the workdir cannot be written.
    """
    config = check_config(config, source)
    identity = {k: v for k, v in config.to_dict().items() if k not in NEUTRAL}
    workdir = results.claim_workdir(workdir, {"config": identity})
    if source is None:
        fields = {k: v for k, v in config.data.items() if k != "source"}
        source = data.load(config.data.source, **fields)
    models = {**load_models(config.models), **(models or {})}
    if not models:
        raise ValueError("config.models is empty: name at least one model")
    run = {
        "config": identity,
        "models": {name: _describe(model) for name, model in models.items()},
        "data": dict(source.provenance),
    }
    results.claim_workdir(workdir, run)
    jobs = plan_jobs(models, source, config.analyses, config.group)
    process, processes = parallel.host()
    paths = {job.name: workdir / f"{job.name}.nc" for job in jobs}
    if parallel.agree(all(path.is_file() for path in paths.values())):
        return {name: results.load(path) for name, path in paths.items() if path.is_file()}
    run |= {"versions": results.versions(), "devices": parallel.device_kind()}
    if process == 0:
        results.write_json(workdir / "run.json", run)
    parallel.barrier("workdir claimed")
    state = workdir / f"sums.{process}of{processes}.npz"
    for other in workdir.glob("sums.*of*.npz"):
        if other.name.split("of")[1] != state.name.split("of")[1]:
            raise ValueError(
                f"{other} was saved by a run of another number of hosts; go on with that number, "
                "or delete it to begin again"
            )
    started = time.monotonic()
    measured = measure(
        models,
        source,
        jobs,
        group=config.group,
        seed=config.seed,
        precision=config.precision,
        max_sums_gb=config.max_sums_gb,
        save_every_s=config.save_every_s,
        state=state,
        progress=progress and process == 0,
    )
    for job in jobs:
        said = measured[job.name].attrs.pop("warnings", [])
        measured[job.name] = results.stamp(measured[job.name], _provenance(job, run, said))
    if process == 0:  # the hosts need not share a disk
        for name, path in paths.items():
            results.save(measured[name], path)
            measured[name] = results.load(path)
        images = {job.name: job.images for job in jobs}
        run |= {"images": images, "seconds": round(time.monotonic() - started, 1)}
        results.write_json(workdir / "run.json", run)
    parallel.barrier("results saved")
    state.unlink(missing_ok=True)
    return measured


def _describe(model: Model) -> dict[str, Any]:
    """Returns the origin of a model and what tells it from any other, a user's own included."""
    return {
        **model.provenance,
        "preprocess": model.preprocess.to_dict(),
        "variables_sha256": model.digest(),
    }


def _provenance(job: Job, run: Mapping[str, Any], said: Sequence[str]) -> dict[str, Any]:
    """Returns what a reader of one result needs to know of how it came about."""
    fields = {k: v for k, v in job.config.items() if k not in ("layers", "infos")}
    return {
        "analysis": job.analysis.__name__.rsplit(".", 1)[-1],
        "name": job.name,
        "fields": {**fields, "taps": [*job.config.layers], "images": job.images},
        "models": {name: run["models"][name] for name in job.taps},
        "data": run["data"],
        "group": run["config"]["group"],
        "seed": run["config"]["seed"],
        "precision": run["config"]["precision"],
        "versions": run["versions"],
        "devices": run["devices"],
        "warnings": said,
    }


def measure(
    models: Mapping[str, Model],
    source: Any,
    jobs: Sequence[Job],
    *,
    group: int = CONFIG["group"],
    seed: int = CONFIG["seed"],
    precision: str = CONFIG["precision"],
    max_sums_gb: float = CONFIG["max_sums_gb"],
    save_every_s: float = CONFIG["save_every_s"],
    state: Any = None,
    progress: bool = True,
) -> dict[str, xarray.Dataset]:
    """Runs every job in one pass over the images.

    Args:
      models: name -> model.
      source: the images, see `vitcnn.data`.
      jobs: from `plan_jobs`.
      group, seed, precision, max_sums_gb, save_every_s: see `CONFIG`.
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
    needed = {name: models[name].preprocess for name in dict.fromkeys(bringers(models).values())}
    programs: dict[tuple, parallel.GroupProgram] = {}
    variables = {name: model.variables for name, model in models.items()}
    shapes: dict[str, Any] = {}
    for span in {span.shape: span for span in spans}.values():
        function = group_program(models, jobs, dict(span.takes))
        programs[span.shape] = parallel.GroupProgram(function, precision)
        sums = programs[span.shape].shapes(variables, _batch_shape(models, needed, span))
        shapes |= host_shapes(sums)
    _check_bytes(jobs, shapes, len(spans), max_sums_gb, progress)
    here = State({job.name: job.constant("BLOCKS") for job in jobs}, state)
    here.resume(shapes)
    done = sum(s.stop - s.start for s in mine[: here.next])
    total = sum(s.stop - s.start for s in mine)
    todo = mine[here.next :]
    order = {
        r: data.order(len(source), max(j.images for j in jobs), seed, r) for r in _repeats(todo)
    }
    batches = data.groups(source, needed, [order[s.repeat][s.start : s.stop] for s in todo])
    constants = parallel.on_devices(variables) if todo else None
    width = next(iter(programs.values())).width
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


def _repeats(spans: Sequence[Span]) -> list[int]:
    return sorted({span.repeat for span in spans})


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
        # The blocks themselves, and their running totals while the errors are worked out.
        copies = 2 * min(job.constant("BLOCKS") * (1 + (job.repeats > 1)), groups)
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
