"""Compares two trees of Results: every variable and coordinate of every .nc file, bit for bit.

    python scripts/compare_results.py runs/before runs/after

A change that should only move code must leave every number as it was; this is the check. Values,
types, dimensions and coordinates have to be the same, NaN equal to NaN; attributes (the provenance
among them, which holds versions and paths) may differ, and --attributes lists those that do. With
--tolerance numbers may differ by so much, relative to the largest of their variable. It ends with
exit status 1 where anything differs or is missing on one side.
"""

import pathlib

import numpy as np
import xarray
from absl import app, flags

TOLERANCE = flags.DEFINE_float("tolerance", 0.0, "Largest difference, relative to the variable's.")
ATTRIBUTES = flags.DEFINE_bool("attributes", False, "Also list attributes that differ.")


def files(folder: str) -> dict[str, pathlib.Path]:
    """Returns the .nc files of a folder by their path in it."""
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise app.UsageError(f"there is no folder {folder}")
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.nc"))}


def difference(a: np.ndarray, b: np.ndarray) -> str:
    """Returns how two arrays differ, "" if they do not: to the last bit, or by the tolerance."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype} {list(a.shape)} against {b.dtype} {list(b.shape)}"
    numbers = a.dtype.kind in "fc"
    equal = (a == b) | (np.isnan(a) & np.isnan(b)) if numbers else a == b
    if np.all(equal):
        return ""
    if not numbers:
        return f"{np.sum(~equal)} of {a.size} values differ"
    gap, size = np.abs(a - b)[~equal], np.nanmax(np.abs(a), initial=0)
    worst = np.inf if np.isnan(gap).any() else gap.max() / (size or 1)
    if worst <= TOLERANCE.value:
        return ""
    return f"{np.sum(~equal)} of {a.size} values differ, by up to {worst:.1e} of the largest"


def compare(before: xarray.Dataset, after: xarray.Dataset) -> list[str]:
    """Returns a line for each variable or coordinate that differs or stands on one side alone."""
    lines = []
    for name in [*dict.fromkeys([*before.variables, *after.variables])]:
        if (name in before.variables) != (name in after.variables):
            lines.append(f"{name} is only {'before' if name in before.variables else 'after'}")
            continue
        one, other = before.variables[name], after.variables[name]
        if one.dims != other.dims:
            lines.append(f"{name}: dimensions {one.dims} against {other.dims}")
        elif text := difference(one.values, other.values):
            lines.append(f"{name}: {text}")
        if ATTRIBUTES.value and one.attrs != other.attrs:
            lines.append(f"{name}: attributes {one.attrs} against {other.attrs}")
    if ATTRIBUTES.value:
        keys = sorted({*before.attrs, *after.attrs} - {"provenance"})
        lines += [
            f"attribute {key}: {before.attrs.get(key)!r} against {after.attrs.get(key)!r}"
            for key in keys
            if not np.array_equal(before.attrs.get(key), after.attrs.get(key))
        ]
    return lines


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        raise app.UsageError("give two folders of Results")
    before, after = files(arguments[1]), files(arguments[2])
    if not before and not after:
        raise app.UsageError("there is no .nc file in either folder")
    variables = differ = 0
    for name in sorted({*before, *after}):
        if (name in before) != (name in after):
            lines, count = [f"only {'before' if name in before else 'after'}"], 0
        else:
            with xarray.open_dataset(before[name]) as one, xarray.open_dataset(after[name]) as two:
                lines, count = compare(one.load(), two.load()), len(one.variables)
        variables += count
        differ += bool(lines)
        for line in lines:
            print(f"{name}: {line}")
    both = len({*before} & {*after})
    print(
        f"{both} files on both sides, {variables} variables and coordinates: {differ} files differ"
    )
    return 1 if differ else 0


if __name__ == "__main__":
    app.run(main)
