"""Text: what an ablation found, in lines of text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray

from vitcnn.results import datasets


def table(results: Mapping[str, xarray.Dataset]) -> str:
    """Returns the single numbers of the Results of an ablation: means, differences and effects.

    Every number has half of its 95% interval over seeds; without two seeds there is no interval. In
    brackets is how much single networks differ: the deviation over seeds, and the standard error
    over images (root mean square over seeds). What no network has is left out, such as numbers of
    the class token of ResNets.

    Args:
      results: from `vitcnn.ablate`.
    """
    lines = list(dict.fromkeys(w for r in results.values() for w in _warnings(r)))
    for job, result in results.items():
        for name in result.data_vars:
            mean = result.get(f"{name}_mean")
            by_run = mean is not None and mean.dims == ("run",)
            if by_run and datasets.has_numbers(result, name):
                lines += _lines(job, str(name), result)
    return "\n".join(lines)


def _warnings(result: xarray.Dataset) -> list[str]:
    return datasets.provenance(result)["warnings"]


def _lines(job: str, name: str, result: xarray.Dataset) -> list[str]:
    """Returns the lines of one variable."""
    title = result[name].attrs.get("long_name", name)
    lines = [f"{job}: {title}"]
    width = max(len(str(run)) for run in result.run.values)
    for run in result.run.values:
        at = result.sel(run=run)
        line = f"  {run:{width}}  {_number(at, f'{name}_mean')} ({_parts(at, name)})"
        if np.isfinite(at[f"{name}_difference"]):
            line += f"   minus {at.against.item()}: {_number(at, f'{name}_difference')}"
        lines.append(line)
    if f"{name}_effect" in result:
        for effect in result.effect.values:
            at = result.sel(effect=effect)
            lines.append(f"  effect of {effect}: {_number(at, f'{name}_effect')}")
    return lines


def _number(result: xarray.Dataset, name: str) -> str:
    return f"{float(result[name]):9.4f} +- {float(result[f'{name}_half_width']):.4f}"


def _parts(result: xarray.Dataset, name: str) -> str:
    """Returns the deviation of one network over seeds, and its error over images if it has one."""
    parts = f"seeds {float(result[f'{name}_deviation']):.4f}"
    if f"{name}_standard_error" in result:
        parts += f", images {image_error(result[f'{name}_standard_error'].values):.4f}"
    return parts


def image_error(errors: np.ndarray) -> float:
    """Returns the root mean square of the errors of those seeds that have one."""
    there = errors[np.isfinite(errors)]
    return float(np.sqrt(np.mean(there**2))) if there.size else float("nan")
