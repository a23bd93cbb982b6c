"""Gather: the Results of single networks -> one Result with the dimensions run and seed.

Each variable X of an analysis becomes

- X [run, seed, ...], and X_standard_error [run, seed, ...], over images, of single networks;
- X_mean [run, ...], X_deviation [run, ...], the mean and the sample deviation over seeds;
- X_difference [run, ...], the mean over seeds of a run minus the run that it is compared with, of
  the same seed;
- X_effect [effect, ...] where the runs are a factorial design: what a factor does to X, from its
  lowest to its highest level, mean over the levels of all other factors; and of two factors
  ("a:b"), how much more the first does at the highest level of the second than at its lowest;
- of the mean, the difference and the effect, X_mean_seed_error and so on, the standard error over
  seeds, and X_mean_half_width and so on, half of the 95% interval by Student's t.

A network that diverged has NaN; what is left of a run counts. Comparisons with the next seed form a
ring in which each network counts twice, so their intervals over seeds are a little too narrow.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from vitcnn.ablations.plan import Network, Plan
from vitcnn.config import BASELINE
from vitcnn.numerics.statistics import over_seeds
from vitcnn.results import datasets

END = "_standard_error"
_OVER_SEEDS = ("seed_error", "half_width")


def gather(
    plan: Plan, results: Mapping[Network, xarray.Dataset], job: str, record: Mapping[str, Any]
) -> xarray.Dataset:
    """Returns the Result of an analysis over all runs and seeds.

    Args:
      plan: the ablation.
      results: the Results of the networks that have one; their provenance is one of them.
      job: name of the analysis in the config.
      record: further provenance.

    Raises:
      ValueError: the Results have different layers.
    """
    stacked = _stacked(plan, results, job)
    origin = datasets.provenance(next(iter(results.values())))
    against = [plan.config.against.get(run, BASELINE) for run in plan.runs]
    levels = factor_levels(plan)
    gathered = stacked.copy()
    for name, values in stacked.data_vars.items():
        if name.endswith(END):
            continue
        values = values.transpose("run", ..., "seed")
        units = {k: v for k, v in values.attrs.items() if k in ("long_name", "units")}
        rest = values.dims[1:-1]
        x = values.values
        _add(gathered, f"{name}_mean", ("run", *rest), x, units, "mean over seeds", deviation=name)
        paired = x - x[[plan.runs.index(other) for other in against]]
        itself = [run == other for run, other in zip(plan.runs, against, strict=True)]
        paired[itself] = np.nan
        _add(gathered, f"{name}_difference", ("run", *rest), paired, units, "minus its pair")
        effects = factorial_effects(x, levels)
        if effects:
            stack = np.stack(list(effects.values()))
            _add(gathered, f"{name}_effect", ("effect", *rest), stack, units, "effect of a factor")
            gathered = gathered.assign_coords(effect=list(effects))
    gathered = gathered.assign_coords(against=("run", against))
    for factor, values in _factor_coordinates(plan).items():
        gathered = gathered.assign_coords({factor: ("run", values)})
    provenance = {
        **{k: origin[k] for k in ("data", "group", "precision", "versions", "devices")},
        "analysis": "ablation",
        "ablation": plan.config.name,
        "name": job,
        "fields": origin["fields"],
        "models": _models(results, plan),
        "seeds": plan.config.seeds,
        **record,
    }
    return datasets.stamp(gathered, provenance)


def _add(
    dataset: xarray.Dataset,
    name: str,
    dims: Sequence[str],
    values: np.ndarray,
    attrs: Mapping[str, Any],
    what: str,
    deviation: str = "",
) -> None:
    """Adds the mean over seeds, its standard error and half of its interval to a Dataset."""
    numbers = over_seeds(values)
    long_name = f"{attrs.get('long_name', name)}, {what}"
    units = {"units": attrs["units"]} if "units" in attrs else {}
    dataset[name] = (dims, numbers["mean"], {"long_name": long_name, **units})
    for end, key in zip(_OVER_SEEDS, ("standard_error", "half_width"), strict=True):
        of = "standard error over seeds" if end == "seed_error" else "half of the 95% interval"
        attrs_of = {"long_name": f"{of}: {long_name}", **units}
        dataset[f"{name}_{end}"] = (dims, numbers[key], attrs_of)
    if deviation:
        attrs_of = {"long_name": f"{attrs.get('long_name', name)}, deviation over seeds", **units}
        dataset[f"{deviation}_deviation"] = (dims, numbers["deviation"], attrs_of)


def _stacked(plan: Plan, results: Mapping[Network, xarray.Dataset], job: str) -> xarray.Dataset:
    """Returns the Results along run and seed, NaN where there is none."""
    first = next(iter(results.values()))
    estimates = [
        name
        for name, values in first.data_vars.items()
        if values.dtype.kind == "f" and all(name in result for result in results.values())
    ]
    for network, result in results.items():
        for name, coordinate in first.indexes.items():
            if list(coordinate) != list(result.indexes.get(name, ())):
                raise ValueError(
                    f"{job}: the networks {next(iter(results))} and {network} have other "
                    f"coordinates {name}, {list(coordinate)[:4]} and "
                    f"{list(result.indexes.get(name, ()))[:4]}: name taps that all have, in "
                    f"config.analyses.{job}.taps"
                )
    shape = len(plan.runs), plan.config.seeds
    stacked = {}
    for name in estimates:
        values = np.full((*shape, *first[name].shape), np.nan)
        for network, result in results.items():
            values[plan.runs.index(network.run), network.seed] = result[name].values
        stacked[name] = (("run", "seed", *first[name].dims), values, first[name].attrs)
    coords = {
        name: values
        for name, values in first.coords.items()
        if all(name in r.coords and values.equals(r.coords[name]) for r in results.values())
    }
    own = {"run": list(plan.runs), "seed": np.arange(plan.config.seeds)}
    attrs = {k: v for k, v in first.attrs.items() if k != "provenance"}
    same = {
        k: v
        for k, v in attrs.items()
        if all(np.array_equal(r.attrs.get(k), v) for r in results.values())
    }
    return xarray.Dataset(stacked, {**coords, **own}, same)


def _models(results: Mapping[Network, xarray.Dataset], plan: Plan) -> dict[str, Any]:
    """Returns the record of the first measured network of each run."""
    records: dict[str, Any] = {}
    for network, result in results.items():
        origin = datasets.provenance(result)["models"]
        records.setdefault(network.run, origin["model"])
    return {run: records[run] for run in plan.runs if run in records}


def factor_levels(plan: Plan) -> dict[str, list[Any]]:
    """Returns the level of each run by factor; {} unless all runs have the same factors."""
    factors = plan.config.factors
    names = list(dict.fromkeys(name for run in factors for name in factors[run]))
    if not all(run in factors and set(factors[run]) == set(names) for run in plan.runs):
        return {}
    return {name: [factors[run][name] for run in plan.runs] for name in names}


def _factor_coordinates(plan: Plan) -> dict[str, list[Any]]:
    """Returns the levels of each factor, as numbers with NaN or as words with "" for no level."""
    factors = plan.config.factors
    names = list(dict.fromkeys(name for run in factors for name in factors[run]))
    coordinates = {}
    for name in names:
        levels = [factors.get(run, {}).get(name) for run in plan.runs]
        words = any(isinstance(level, str) for level in levels)
        none = "" if words else float("nan")
        coordinates[name] = [none if v is None else str(v) if words else float(v) for v in levels]
    return coordinates


def factorial_effects(
    values: np.ndarray, levels: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """Returns the effects of factors, and of pairs of them, for each seed.

    Args:
      values: [run, ..., seed].
      levels: factor -> level of each run. Numbers are ordered by size; words in the order in which
        the runs have them, so that the first level is the baseline's.

    Returns:
      Effect -> [..., seed]; {} without two runs for each pair of levels, that is unless every
      combination of levels is one run.
    """
    levels = {name: of for name, of in levels.items() if len(set(of)) > 1}
    ends = {name: _ends(of) for name, of in levels.items()}
    cells = {combination: i for i, combination in enumerate(zip(*levels.values(), strict=True))}
    whole = np.prod([len(set(of)) for of in levels.values()])
    if not levels or len(cells) < len(values) or len(cells) != whole:
        return {}

    def mean(**at: Any) -> np.ndarray:
        """Returns the mean of the runs at some levels."""
        rows = [
            i
            for i in range(len(values))
            if all(levels[name][i] == level for name, level in at.items())
        ]
        return values[rows].mean(0)

    effects = {}
    for name, (low, high) in ends.items():
        effects[name] = mean(**{name: high}) - mean(**{name: low})
    for a, b in itertools.combinations(ends, 2):
        at = {(i, j): mean(**{a: ends[a][i], b: ends[b][j]}) for i in (0, 1) for j in (0, 1)}
        effects[f"{a}:{b}"] = at[1, 1] - at[0, 1] - at[1, 0] + at[0, 0]
    return effects


def _ends(of: Sequence[Any]) -> tuple[Any, Any]:
    """Returns the lowest and the highest level of a factor."""
    order = list(dict.fromkeys(of))
    if not any(isinstance(level, str) for level in of):
        order = sorted(order)
    return order[0], order[-1]
