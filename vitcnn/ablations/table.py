"""Table: what an ablation found, in lines of text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray

from vitcnn.results import datasets


def table(results: Mapping[str, xarray.Dataset]) -> str:
    """Returns the single numbers of the Results of an ablation: means, differences and effects.

    Every number has half of its 95% interval over seeds; without two seeds there is no interval.

    Args:
      results: from `vitcnn.ablate`.
    """
    lines = list(dict.fromkeys(w for r in results.values() for w in _warnings(r)))
    for job, result in results.items():
        for name in result.data_vars:
            if f"{name}_mean" in result and result[f"{name}_mean"].dims == ("run",):
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
        line = f"  {run:{width}}  {_number(at, f'{name}_mean')}"
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
