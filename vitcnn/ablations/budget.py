"""Budget: what an ablation will cost, before its first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vitcnn import compilation, models, parallel
from vitcnn.ablations.plan import Network, Plan
from vitcnn.results import workdir as run_folder
from vitcnn.training import flops, start
from vitcnn.training import log as training_log

# Of two CPU cores (measured with small networks), and the share of its peak that an accelerator
# reaches; until a training of the ablation itself has been timed.
_CPU_SPEED, _SHARE_OF_PEAK = 40e9, 0.25
_BACKWARD = 3  # a step costs about three forward passes


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one training of a run costs.

    Attributes:
      run: name of the run.
      parameters: number of parameters of its network.
      steps: number of steps.
      images: number of training images; a step takes `batch` of them.
      batch: images of a step.
      flops: floating-point operations of all its steps, of the products alone.
    """

    run: str
    parameters: int
    steps: int
    images: int
    batch: int
    flops: float


def costs(plan: Plan) -> dict[str, Cost]:
    """Returns the cost of one training of each run; networks are traced, nothing is computed.

    Raises:
      ValueError: a network, a length or a batch of a run does not fit.
    """
    sources: dict[str, Any] = {}
    networks: dict[str, tuple[int, float]] = {}
    by_run = {}
    for run in plan.runs:
        config = plan.config.runs[run]
        try:
            data, model = config.data.to_json(), config.model.to_json()
            if data not in sources:
                sources[data] = start.open_labelled(config.data)
            total, _, _ = start.lengths(config, sources[data])
            if model not in networks:
                networks[model] = _network(config.model.to_dict())
        except (TypeError, ValueError) as error:
            raise ValueError(f"config.runs.{run}: {error}") from error
        parameters, work = networks[model]
        by_run[run] = Cost(
            run, parameters, total, len(sources[data]), config.batch, work * config.batch * total
        )
    return by_run


def _network(fields: dict[str, Any]) -> tuple[int, float]:
    """Returns the number of parameters, and the FLOPs of a training step on one image."""
    family, variant = fields.pop("family"), fields.pop("variant")
    for field in ("new_head", "position_resize", "position_grid", "average", "preprocess"):
        fields.pop(field, None)
    module = models.create(family, variant, **fields)
    side = module.image_size
    size = (side, side) if isinstance(side, int) else tuple(side)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    variables = jax.eval_shape(lambda x: module.init(keys, x), image)

    def forward(variables, images):
        stats = [name for name in variables if name != "params"]
        rngs = {"dropout": keys["dropout"]}
        return module.apply(variables, images, train=True, mutable=stats, rngs=rngs)

    work = compilation.multiplications(jax.make_jaxpr(forward)(variables, image))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return parameters, 2.0 * _BACKWARD * sum(work.values())


def text(plan: Plan, costs: dict[str, Cost], chosen: Sequence[Network]) -> str:
    """Returns the budget in lines: each run, and the total of what is still to be trained.

    Args:
      plan: the ablation.
      costs: from `costs`.
      chosen: the networks that will be trained, or have been.
    """
    todo = [n for n in chosen if not plan.is_trained(n) and not plan.diverged(n)]
    runs = dict.fromkeys(network.run for network in chosen)
    width = max(map(len, runs))
    lines = [f"ablation {plan.config.name}: {len(runs)} runs, {len(chosen)} networks"]
    for run in runs:
        cost = costs[run]
        lines.append(
            f"  {run:{width}}  {cost.parameters / 1e6:8.2f} M parameters, {cost.steps:6d} steps of "
            f"{cost.batch}, {cost.images:8d} images, {cost.flops / 1e12:9.4g} TFLOP"
        )
    total = sum(costs[network.run].flops for network in todo)
    steps = sum(costs[network.run].steps for network in todo)
    speed, origin = _speed(plan, costs)
    lines.append(
        f"to train: {len(todo)} of {len(chosen)} networks, {steps} steps, "
        f"{total / 1e12:.4g} TFLOP, about {total / speed / 3600:.2g} hours "
        f"at {speed / 1e9:.3g} GFLOP/s ({origin})"
    )
    return "\n".join(lines)


def _speed(plan: Plan, costs: dict[str, Cost]) -> tuple[float, str]:
    """Returns the FLOP/s to expect, and where the number comes from."""
    timed = list(_timed(plan, costs))
    if timed:
        work, seconds = map(sum, zip(*timed, strict=True))
        return work / seconds, "measured on the networks trained so far"
    kind = parallel.device_kind()
    peak = flops.peak(kind, parallel.data_mesh().size)
    if math.isfinite(peak):
        return _SHARE_OF_PEAK * peak, f"a quarter of the peak of {kind}"
    return _CPU_SPEED, "usual of two CPU cores"


def _timed(plan: Plan, costs: dict[str, Cost]) -> Iterable[tuple[float, float]]:
    """Yields (FLOPs, seconds) of trainings that have ended."""
    for network in plan.networks:
        lines = run_folder.read_log(plan.folder(network) / training_log.FILE)
        if lines is None or not plan.is_trained(network):
            continue
        rates = [1 / line["images_per_second"] for line in lines if "images_per_second" in line]
        if rates:
            cost = costs[network.run]
            yield cost.flops, cost.steps * cost.batch * sum(rates) / len(rates)
