"""The training loop: one for every model. An experiment is a config, never a copy of this file."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tqdm

from vitcnn import checkpoints, compilation, data, parallel, storage
from vitcnn.data import pool, resident
from vitcnn.model import Model, load
from vitcnn.training import flops, start
from vitcnn.training import log as logs
from vitcnn.training import step as steps
from vitcnn.training.checkpoints import Checkpoints
from vitcnn.training.start import Run
from vitcnn.training.state import TrainState
from vitcnn.training.stop import Stop, Stopped

PROFILE = "profile"


def train(config: Any, workdir: Any, *, progress: bool = True) -> Model:
    """Trains a network on a data-parallel mesh of all devices.

    Every batch, and all that is random in a step, is a pure function of the config and the number
    of the step. So a run that was stopped at any moment and resumed (the same config and workdir)
    takes the same steps as a run that was not: on the CPU, to the last bit.

    Args:
      config: fields of `vitcnn.config.Training`; `configs/train/` has examples.
      workdir: folder, here or in a bucket, for run.json, train.jsonl, evaluations.jsonl,
        checkpoints, evaluations, snapshots and, at the end, weights.npz.
      progress: whether to show a bar with rate, loss and ETA.

    Returns:
      The trained model; `vitcnn.load(family, variant, weights=workdir)` loads it again.

    Raises:
      ValueError: anything in the config that is unknown or does not fit, before any long work.
      FloatingPointError: the loss or a norm is not finite; the last checkpoint is from before.
      Stopped: SIGTERM or SIGINT (Ctrl-C) came; the state is saved, and the same call goes on.
    """
    show = progress and parallel.host()[0] == 0
    run = start.prepare(config, workdir, show)
    if isinstance(run, Model):
        return run
    mesh = parallel.data_mesh()
    folder = run.workdir / checkpoints.CHECKPOINTS
    with Checkpoints(folder, run.every["keep_every"]) as saved:
        state, is_new = start.begin(run, saved, mesh)
        # The devices need no second copy, and the first step overwrites these arrays.
        run.model.variables = jax.eval_shape(lambda: run.model.variables)
        run.write_record()
        state = _fit(run, state, saved, mesh, is_new, show)
    variables = jax.tree.map(np.asarray, parallel.whole(state.variables, mesh))
    run.record.update(run.evaluations.finish(variables))
    start.export(run, variables)
    if parallel.host()[0] == 0:
        run.record["waiting"] = round(logs.share_waited(run.workdir / logs.FILE), 3)
        if show:
            tqdm.tqdm.write(f"waited for images: {run.record['waiting']:.0%} of the time")
    run.record[start.FINISHED] = run.total  # the marker, after all else
    run.write_record()
    parallel.barrier("training done")
    return load(run.config.model.family, run.config.model.variant, weights=run.workdir)


def _fit(
    run: Run, state: TrainState, saved: Checkpoints, mesh: Any, is_new: bool, show: bool
) -> TrainState:
    """Takes the steps that remain, and returns the last state, which is saved."""
    config, first = run.config, int(state.step)
    variables = lambda: parallel.whole(state.variables, mesh)  # noqa: E731
    raw = lambda: parallel.whole(state.raw_variables, mesh)  # noqa: E731
    run.evaluations.start(first, is_new, variables)
    numbers = run.evaluations.run(first, variables, raw)
    if first == run.total:  # only evaluations were missing
        return state
    batches = _batches(run, first, mesh, show)
    batch = next(batches)
    take_step, operations = _compiled(run, state, batch, mesh)
    run.write_record()  # with the options of the compiler
    parallel.barrier("compiled")
    log = logs.Log(
        run.workdir,
        first,
        run.total,
        run.every["log_every"],
        config.batch,
        operations,
        flops.peak(parallel.device_kind(), mesh.size),
        f"training {config.model.family} {config.model.variant}" if show else "",
    )
    log.write_events(first, numbers)
    with Stop() as stop, contextlib.closing(log), contextlib.ExitStack() as tracing:
        for step in range(first + 1, run.total + 1):
            _trace(run, step, tracing)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = take_step(state, batch)
            log.add(step, metrics)
            if step < run.total:
                with log.clock.waiting(metrics["loss"].is_ready):
                    batch = next(batches)
            leave = stop.due(step)
            if leave or step % run.every["checkpoint_every"] == 0 or step == run.total:
                log.settle()  # a state that is not finite is never saved
                log.flush()
                saved.save(step, state, config.optimizer.optimizer)
            if leave:
                saved.wait()
                raise Stopped(
                    f"{stop.signal or 'a signal'}: stopped after step {step} of {run.total}, which "
                    f"is saved in {run.workdir}; the same command goes on from there"
                )
            if run.evaluations.due(step):
                log.settle()
                with log.clock.stopped():
                    log.write_events(step, run.evaluations.run(step, variables, raw))
    return state


def _batches(run: Run, first: int, mesh: Any, show: bool) -> Iterator[dict[str, Any]]:
    """Yields every batch after the first `first` steps, on the devices."""
    config = run.config
    process, processes = parallel.host()
    _, data_seed = steps.seeds(config)
    how = pool.of_config(config)
    held, place = None, functools.partial(parallel.shard, mesh=mesh)
    if run.on_device:
        images, held = resident.read(run.source, run.model.preprocess, show, **how)
        place = parallel.made_of(images, resident.batch_of, mesh)
    batches = data.batches(
        run.source,
        run.model.preprocess,
        config.batch,
        data_seed,
        start=first,
        augment=tuple(config.augment),
        repeats=config.repeats,
        host=process,
        hosts=processes,
        resident=held,
        **how,
    )
    return map(place, batches)


def _compiled(run: Run, state: TrainState, batch: Any, mesh: Any) -> tuple[Any, float]:
    """Returns the compiled step, which overwrites its state, and its floating-point operations."""
    config = run.config

    def traced(config, unroll):
        made_of = run.model, run.optimizer, run.schedule
        return steps.trace(*made_of, config, unroll, state, batch, mesh)

    program = plain = traced(config, parallel.on_cpu())
    run.record["compiler_options"] = options = compilation.options(program.jaxpr)
    if config.remat or (config.accumulate > 1 and not parallel.on_cpu()):
        without = config.copy_and_resolve_references()
        without.remat = False
        plain = traced(without, True)
    lowered = program.lower()
    operations = flops.of_step(lowered if plain is program else plain.lower())
    return lowered.compile(compiler_options=options), operations


def _trace(run: Run, step: int, tracing: contextlib.ExitStack) -> None:
    """Starts and ends the trace of the profiler."""
    if run.config.profile:
        first, last = map(int, run.config.profile.split(":"))
        if step == first:
            folder = tracing.enter_context(storage.folder_here(run.workdir / PROFILE))
            tracing.enter_context(jax.profiler.trace(str(folder)))
        elif step == last + 1:
            tracing.close()
