"""Where weights come from: a path, a Hugging Face repository, a URL, a training run."""

from __future__ import annotations

import os

from vitcnn.checkpoints import files
from vitcnn.checkpoints.fetch import hub, url, workdir
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.storage import local_path

_SCHEMES = ("hf:", "http://", "https://")


def is_address(name: str | os.PathLike) -> bool:
    """Whether a name is the address or the path of weights, and not the name of a network."""
    if not isinstance(name, str) or name.startswith(_SCHEMES):
        return True
    return os.path.exists(name) or files.is_named_like_weights(name)


def locate(weights: str | os.PathLike | None) -> Source:
    """Finds weights on this machine, and downloads them first if they are elsewhere.

    Args:
      weights: the path of a file; "hf:<owner>/<repo>[@<revision>][:<file>]" on Hugging Face;
        "https://...#sha256=<hex>"; the folder of a training run, or in it "checkpoints" for the
        weights so far, "checkpoints/500" or "snapshots/500.npz"; the folder of a downloaded Hugging
        Face repository; or None or "random", which have no path.

    Raises:
      ValueError: `weights` is empty or is an address of another kind; `hub.fetch`, `url.fetch` and
        `workdir.read` list further reasons.
      FileNotFoundError: the folder holds no weights.
      ConnectionError: the weights cannot be downloaded.
      ImportError: the weights are on Hugging Face and huggingface_hub is not installed.
    """
    if weights is None or weights == "random":
        return Source()
    address = os.fspath(weights)
    if not address:
        raise ValueError(
            "weights is the empty string; give a path, hf:<owner>/<repo>, "
            'https://...#sha256=<hex>, or "random" for random weights'
        )
    if address.startswith("hf:"):
        return hub.fetch(address)
    if address.startswith(("http://", "https://")):
        return url.fetch(address)
    path = local_path(address, "weights")
    if workdir.is_part(path):
        return workdir.read(path)
    if not path.is_dir():
        return Source(path)
    if not (path / workdir.RUN).exists():
        for name in hub.WEIGHTS:
            if (path / name).exists():
                return Source(path / name)
    return workdir.read(path)
