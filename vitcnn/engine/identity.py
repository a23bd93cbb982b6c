"""Identity: what the numbers of a run depend on, apart from the fields of its config.

A workdir belongs to one run. Its run.json therefore holds digests of the images, and of the
computation of networks and of the text of analyses that are not part of this package. Paths, times
and numbers of devices are not part of an identity: a copy of the images gives the same numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jax.extend import core

from vitcnn import parallel, results
from vitcnn.config.schema import Fields
from vitcnn.data import classes as class_numbers
from vitcnn.data import content, order, sources
from vitcnn.data.preprocess import Preprocess
from vitcnn.engine.jobs import Job
from vitcnn.model import Model
from vitcnn.results import environment
from vitcnn.results import workdir as run_folder

PACKAGE = __name__.partition(".")[0]
_SHOWN = 6  # entries that an error lists


def images_sha256(source: Any, jobs: Sequence[Job], seed: int) -> dict[str, str]:
    """Returns a digest of the images that each job reads, in their order, and of their labels."""
    indices = {
        job.name: np.concatenate(
            [order(len(source), job.images, seed, repeat) for repeat in range(job.repeats)]
        )
        for job in jobs
    }
    used = np.unique(np.concatenate(list(indices.values()))).tolist()
    digest = dict(zip(used, content.digests(source, used), strict=True))
    texts = {name: "\n".join(digest[i] for i in read.tolist()) for name, read in indices.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def source_sha256(source: Any) -> str:
    """Returns a digest of all images of a source and of their labels."""
    text = "\n".join(content.digests(source, range(len(source))))
    return hashlib.sha256(text.encode()).hexdigest()


def analyses_sha256(jobs: Sequence[Job]) -> dict[str, str]:
    """Returns a digest of the text of every analysis that is not part of this package, by job."""
    outside = [job for job in jobs if job.analysis.__name__.partition(".")[0] != PACKAGE]
    return {job.name: _text_sha256(job.analysis) for job in outside}


def model_record(model: Model, computation: bool) -> dict[str, Any]:
    """Returns where a model comes from, and digests that distinguish it from every other model.

    Args:
      model: the model.
      computation: whether the record needs a digest of what the model computes, because its
        provenance does not say it: for a network in memory, or of a family outside this package.
    """
    record = {
        **model.provenance,
        "kind": model.kind,
        "preprocess": model.preprocess.to_dict(),
        "variables_sha256": model.digest(),
    }
    if computation:
        # The digest is of JAX's own operations, which another version may choose differently.
        record["computation"] = {"sha256": computation_sha256(model), "jax": jax.__version__}
    if type(model.preprocess) is not Preprocess:
        record["preprocess_sha256"] = _text_sha256(type(model.preprocess))
    return record


def images_record(source: Any, jobs: Sequence[Job], seed: int) -> dict[str, Any]:
    """Returns what the images of a pass are, for run.json."""
    digests = images_sha256(source, jobs, seed)
    return {"data": content.describe(source), "images_sha256": digests}


def classes_record(source: Any, jobs: Sequence[Job]) -> dict[str, Any]:
    """Returns how the classes of the labels meet the logits, by job, for run.json."""
    return {job.name: class_numbers.statement(job.classes, source) for job in jobs if job.classes}


def stamped(
    measured: Mapping[str, xarray.Dataset],
    jobs: Sequence[Job],
    record: Mapping[str, Any],
    continued: Mapping[str, Mapping[str, xarray.Dataset]],
) -> dict[str, xarray.Dataset]:
    """Returns the Results of a pass with their provenance, which takes over their warnings.

    Args:
      measured: job name -> Result, from `stream.measure`.
      jobs: the jobs of the pass.
      record: what run.json says of the pass.
      continued: job name -> stage -> Result from which the job continued.
    """
    results_of_pass = {}
    for job in jobs:
        messages = measured[job.name].attrs.pop("warnings", [])
        origin = _provenance(job, record, continued.get(job.name, {}), messages)
        results_of_pass[job.name] = results.stamp(measured[job.name], origin)
    return results_of_pass


def _provenance(
    job: Job,
    record: Mapping[str, Any],
    continued: Mapping[str, xarray.Dataset],
    messages: Sequence[str],
) -> dict[str, Any]:
    """Returns what a reader of one Result needs to know about its origin.

    Args:
      job: the job.
      record: what run.json says of the pass.
      continued: stage -> Result that the job continued from.
      messages: warnings of the analysis.
    """
    stages = {stage: results.provenance(result) for stage, result in continued.items()}
    return {
        "analysis": job.fields["analysis"],
        "name": job.name,
        "fields": job.fields,
        "models": {name: record["models"][name] for name in job.taps},
        "data": record["data"],
        "images_sha256": record["images_sha256"][job.name],
        **({"classes": record["classes"][job.name]} if job.classes else {}),
        "group": record["config"]["group"],
        "seed": record["config"]["seed"],
        "precision": record["config"]["precision"],
        "versions": record["versions"],
        "devices": record["devices"],
        "warnings": messages,
        **({"stages": stages} if stages else {}),
    }


def computation_sha256(model: Model) -> str:
    """Returns a digest of what a model computes: the operations of its logits and of all its taps.

    Whatever changes a number changes the operations: the code of the network, its fields, the
    arguments of its call, and constants in it.
    """
    names = tuple(model.taps)
    images = jax.ShapeDtypeStruct((2, *model.image_size, 3), jnp.float32)
    sha = hashlib.sha256()
    for name in names:
        sha.update(repr(model.taps[name]).encode())
    run = lambda variables, images: model.forward(variables, images, names)  # noqa: E731
    closed, outputs = jax.make_jaxpr(run, return_shape=True)(model.variables, images)
    sha.update(repr(list(outputs[1])).encode())
    _add(sha, closed)
    return sha.hexdigest()


def neutral(config: Fields, models: Sequence[str] = ()) -> set[str]:
    """Returns the entries of run.json that say only where images and weights are.

    Digests say what they are.

    Args:
      config: a checked config of a measurement or of a training run.
      models: names of models in memory.
    """
    entries = {"data.path"} | _location(config.get("data"), "config.data")
    for name, evaluation in config.get("evaluations", {}).items():
        prefix = f"config.evaluations.{name}"
        entries |= {f"evaluations.{name}.data.path"} | _location(
            evaluation["data"], f"{prefix}.data"
        )
        for stage_name, stage in evaluation["stages"].items():
            entries |= _location(stage.get("data"), f"{prefix}.stages.{stage_name}.data")
            entries.add(f"evaluations.{name}.stages.{stage_name}.data.path")
    for name, stage in config.get("stages", {}).items():
        entries.add(f"stages.{name}.data.path")
        entries |= _location(stage.get("data"), f"config.stages.{name}.data")
        entries |= _location(stage.get("data"), "config.data")  # of the stage's own run.json
    for name in {*models, *config.get("models", {})}:
        entries.add(f"config.models.{name}.weights")
        entries |= {f"models.{name}.weights.{key}" for key in ("path", "preprocess", "source")}
    return entries


def check_hosts(record: Mapping[str, Any], neutral: Collection[str]) -> None:
    """Compares what the hosts are about to run, which each of them has read for itself.

    Args:
      record: what decides the numbers of the run, or a part of it, as in run.json.
      neutral: its entries that decide no number.

    Raises:
      ValueError: the hosts have different configs, images, weights, code or libraries; on every
        host.
    """
    if parallel.host()[1] == 1:
        return
    here = {k: v for k, v in run_folder.leaves(record).items() if k not in neutral}
    versions = environment.versions()
    versions.pop("revision")  # the code itself counts, and not every copy has a revision
    here |= {f"version of {package}": version for package, version in versions.items()}
    here |= _code()
    digest = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()
    if len(set(parallel.exchange("comparison of the hosts", digest))) == 1:
        return
    first, *others = parallel.exchange("differences of the hosts", here)
    for i, other in enumerate(others, 1):
        lines = [
            f"  {entry}: {first.get(entry, '(not set)')!r} on host 0, "
            f"{other.get(entry, '(not set)')!r} on host {i}"
            for entry in sorted(first.keys() | other.keys())
            if first.get(entry, ...) != other.get(entry, ...)
        ]
        if lines:
            more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            raise ValueError(
                "all hosts have to run the same config and code on the same images; these differ:\n"
                + "\n".join([*lines[:_SHOWN], *more])
            )


def _code() -> dict[str, str]:
    """Returns a digest of every file of this package."""
    folder = pathlib.Path(__file__).parents[1]
    return {
        f"{PACKAGE}/{file.relative_to(folder).as_posix()}": hashlib.sha256(
            file.read_bytes()
        ).hexdigest()[:16]
        for file in sorted(folder.rglob("*.py"))
    }


def _location(fields: Fields | None, entry: str) -> set[str]:
    """Returns the entries of the fields of a source that say where its images are."""
    if not fields or not fields.get("source"):
        return set()
    return {f"{entry}.{field}" for field in sources.location(fields["source"])}


def _text_sha256(thing: ModuleType | type) -> str:
    """Returns a digest of the text of a module or class; of its name if there is no text."""
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):
        text = thing.__qualname__ if isinstance(thing, type) else thing.__name__
    return hashlib.sha256(text.encode()).hexdigest()


def _add(sha: Any, value: Any) -> None:
    """Adds a value to a digest; a program is added operation by operation."""
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
        for constant in getattr(value, "consts", ()):
            _add(sha, constant)
        _add_program(sha, getattr(value, "jaxpr", value))
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(array.tobytes())
    elif isinstance(value, list | tuple):
        sha.update(f"({len(value)}".encode())
        for item in value:
            _add(sha, item)
    elif isinstance(value, Mapping):
        _add(sha, sorted(((str(key), item) for key, item in value.items()), key=lambda x: x[0]))
    elif callable(value) and not isinstance(value, type):
        sha.update(getattr(value, "__qualname__", type(value).__qualname__).encode())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _add(sha, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    else:
        sha.update(re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode())
    sha.update(b";")


def _add_program(sha: Any, program: core.Jaxpr) -> None:
    numbers: dict[Any, int] = {}

    def variables(atoms):
        for atom in atoms:
            if isinstance(atom, core.Literal):
                _add(sha, np.asarray(atom.val))
            else:
                number = numbers.setdefault(atom, len(numbers))
                sha.update(f"{number}:{atom.aval.str_short()} ".encode())

    variables([*program.constvars, *program.invars])
    for equation in program.eqns:
        sha.update(equation.primitive.name.encode())
        variables(equation.invars)
        _add(sha, equation.params)
        variables(equation.outvars)
    variables(program.outvars)
