"""Checkpoints: trained weights from anywhere, in any kind of file and under any names.

`fetch` finds or downloads a file, `files` reads its arrays, a file of `formats` gives them our
names, a file of `families` knows how others describe a network, `identify` says which network of
ours is meant, `restore` merges the arrays strictly into its variables, and `export` writes them.
"""

from vitcnn.checkpoints.export import export
from vitcnn.checkpoints.fetch import is_address, locate
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.checkpoints.fetch.workdir import CHECKPOINTS, SNAPSHOTS, WEIGHTS, latest_checkpoint
from vitcnn.checkpoints.files import read
from vitcnn.checkpoints.identify import Identity, Network, identify, is_name, named
from vitcnn.checkpoints.restore import Checkpoint, WeightsFile, flat, read_file, restore
from vitcnn.checkpoints.timm_export import export_timm

__all__ = [
    "CHECKPOINTS",
    "SNAPSHOTS",
    "WEIGHTS",
    "Checkpoint",
    "Identity",
    "Network",
    "Source",
    "WeightsFile",
    "export",
    "export_timm",
    "flat",
    "identify",
    "is_address",
    "is_name",
    "latest_checkpoint",
    "locate",
    "named",
    "read",
    "read_file",
    "restore",
]
