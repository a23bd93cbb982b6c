"""Checkpoints: trained weights from anywhere, in any kind of file and under any names.

`fetch` finds or downloads a file, `files` reads its arrays, a file of `formats` gives them our
names, `restore` merges them strictly into the variables of a network, and `export` writes them.
"""

from vitcnn.checkpoints.export import export
from vitcnn.checkpoints.fetch import locate
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.checkpoints.fetch.workdir import (
    CHECKPOINTS,
    SNAPSHOTS,
    STATE,
    WEIGHTS,
    checkpoint,
    latest_checkpoint,
    steps_saved,
)
from vitcnn.checkpoints.files import read
from vitcnn.checkpoints.restore import Checkpoint, flat, restore

__all__ = [
    "CHECKPOINTS",
    "SNAPSHOTS",
    "STATE",
    "WEIGHTS",
    "Checkpoint",
    "Source",
    "checkpoint",
    "export",
    "flat",
    "latest_checkpoint",
    "locate",
    "read",
    "restore",
    "steps_saved",
]
