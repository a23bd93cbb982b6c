"""What a number may depend on, apart from its models and images: versions and the revision."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Callable
from typing import Any


def versions() -> dict[str, str]:
    """Returns the versions that a number may depend on, and the project's git revision."""
    numbers = {"python": platform.python_version()}
    for package in ("vitcnn", "jax", "jaxlib", "flax", "numpy", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            numbers[package] = importlib.metadata.version(package)
    numbers["revision"] = _revision()
    return numbers


@functools.cache
def _revision() -> str:
    root = pathlib.Path(__file__).parents[2]  # the folder that holds vitcnn/
    run: Callable[..., Any] = functools.partial(
        subprocess.run, cwd=root, capture_output=True, text=True, timeout=10
    )
    try:
        if pathlib.Path(run(["git", "rev-parse", "--show-toplevel"]).stdout.strip()) != root:
            return "unknown"  # an installed copy inside some other repository
        revision = run(["git", "rev-parse", "--verify", "--quiet", "HEAD"]).stdout.strip()
        dirty = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return revision + ("+changes" if dirty else "") if revision else "unknown"
