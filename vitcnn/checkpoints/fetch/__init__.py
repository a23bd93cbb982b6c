"""Where weights come from: a path, a repository of Hugging Face, a URL, a training run."""

from __future__ import annotations

import os
import pathlib

from vitcnn.checkpoints.fetch import hub, url


def locate(weights: str | os.PathLike) -> tuple[pathlib.Path, str | None]:
    """Returns the path of weights, downloaded first where they are not here.

    Args:
      weights: a path; "hf:<owner>/<repo>[@<revision>][:<file>]", a repository of Hugging Face;
        "https://...#sha256=<hex>"; or the folder of such a repository.

    Returns:
      (path, the source with all that pins it; None for a path).

    Raises:
      ValueError, ConnectionError, ImportError: see `hub.fetch` and `url.fetch`.
    """
    text = str(weights)
    if text.startswith("hf:"):
        return hub.fetch(text)
    if text.startswith(("http://", "https://")):
        return url.fetch(text)
    if text.startswith("gs:"):
        raise ValueError(f"weights {text!r}: download it first (gcloud storage cp), give its path")
    path = pathlib.Path(weights)
    if path.is_dir() and not (path / "run.json").exists():
        path = next((path / name for name in hub.WEIGHTS if (path / name).exists()), path)
    return path, None
