"""What a number may depend on beside its models and images: versions and the revision."""

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
    found = {"python": platform.python_version()}
    for package in ("vitcnn", "jax", "jaxlib", "flax", "numpy", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found["revision"] = _revision()
    return found


@functools.cache
def _revision() -> str:
    here = pathlib.Path(__file__).parent
    run: Callable[..., Any] = functools.partial(
        subprocess.run, cwd=here, capture_output=True, text=True, timeout=10
    )
    try:
        if pathlib.Path(run(["git", "rev-parse", "--show-toplevel"]).stdout.strip()) != here.parent:
            return "unknown"  # an installed copy inside some other repository
        revision = run(["git", "rev-parse", "--verify", "--quiet", "HEAD"]).stdout.strip()
        dirty = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return revision + ("+changes" if dirty else "") if revision else "unknown"
