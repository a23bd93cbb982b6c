"""Checkpoints: trained weights from anywhere, in any kind of file and under any names.

`fetch` finds or downloads a file, `files` reads its arrays, a file of `formats` gives them our
names, a file of `families` knows how others describe a network, `identify` says which network of
ours is meant, `restore` merges the arrays strictly into its variables, and `export` writes them.

How many pretrained names of timm 1.0.31 load by their name alone, and in how many architectures
(scripts/coverage.py; each of the others is refused):

    group                           names    loads  refused    wrong  architectures
    beit                               13        0       13        0              0
    cait                               10        0       10        0              0
    deit                               24       24        0        0             16
    eva                                83        0       83        0              0
    mlp_mixer                          19        6       13        0              2
    naflexvit                          11        0       11        0              0
    resnet                            150      146        4        0             60
    resnetv2                           24       23        1        0             13
    senet                               9        0        9        0              0
    vision_transformer                309      286       23        0            126
    vision_transformer_hybrid          14       11        3        0              8
    vision_transformer_relpos           9        9        0        0              9
    vision_transformer_sam              3        0        3        0              0
    all                               678      505      173        0            234
"""

from vitcnn.checkpoints.export import export
from vitcnn.checkpoints.fetch import is_address, locate
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
from vitcnn.checkpoints.identify import Identity, Network, identify, is_name, named
from vitcnn.checkpoints.restore import Checkpoint, WeightsFile, flat, read_file, restore
from vitcnn.checkpoints.sidecars.timm import architectures
from vitcnn.checkpoints.timm_export import export_timm

__all__ = [
    "CHECKPOINTS",
    "SNAPSHOTS",
    "STATE",
    "WEIGHTS",
    "Checkpoint",
    "Identity",
    "Network",
    "Source",
    "WeightsFile",
    "architectures",
    "checkpoint",
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
    "steps_saved",
]
