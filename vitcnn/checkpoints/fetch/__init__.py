"""Where weights come from: a path, a bucket, a Hugging Face repository, a URL, a training run."""

from __future__ import annotations

import os

from vitcnn import storage
from vitcnn.checkpoints import files
from vitcnn.checkpoints.fetch import bucket, hub, url, workdir
from vitcnn.checkpoints.fetch.source import Source


def is_address(name: str | os.PathLike) -> bool:
    """Whether a name is the address or the path of weights, and not the name of a network."""
    if not isinstance(name, str) or name.startswith(("hf:", ".", "~", os.sep)) or "://" in name:
        return True
    return os.path.exists(name) or files.is_named_like_weights(name)


def locate(weights: str | os.PathLike | None) -> Source:
    """Finds weights on this machine, and downloads them first if they are elsewhere.

    Args:
      weights: the path of a file, here or in a bucket; "hf:<owner>/<repo>[@<revision>][:<file>]" on
        Hugging Face; "https://...#sha256=<hex>"; the folder of a training run, or in it
        "checkpoints" for the weights so far, "checkpoints/500" or "snapshots/500.npz"; the folder
        of a downloaded Hugging Face repository; or None or "random", which have no path.

    Raises:
      ValueError: `weights` is empty or is an address of another kind; `hub.fetch`, `url.fetch` and
        `workdir.read` list further reasons.
      FileNotFoundError: the folder holds no weights.
      ConnectionError: the weights cannot be downloaded.
      ImportError: the weights are on Hugging Face and huggingface_hub is not installed.
      TypeError: `weights` is no text and no path.
    """
    if weights is None or weights == "random":
        return Source()
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"weights is a {type(weights).__name__}: expected a path, hf:<owner>/<repo>, "
            'https://...#sha256=<hex>, or "random"; save arrays to a file first'
        )
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
    path = storage.as_path(address, "weights")
    source = _at(path)
    return bucket.fetch(source) if storage.is_remote(path) else source


def _at(path: storage.Path) -> Source:
    """Returns the weights of a file or folder."""
    if workdir.is_run(path):
        return workdir.read(path)
    # A bucket may list a new folder late.
    if path.is_dir() or (storage.is_remote(path) and not files.is_named_like_weights(path.name)):
        for name in hub.WEIGHTS:
            if storage.exists(path / name):
                return Source(path / name)
        if shards := sorted(shard.name for shard in path.glob("*-of-*") if shard.is_file()):
            raise FileNotFoundError(
                f"{path} has weights in shards, such as {shards[0]}, without the index that says "
                "which array is in which: download model.safetensors.index.json (or "
                "pytorch_model.bin.index.json) too"
            )
    return workdir.read(path) if path.is_dir() else Source(path)
