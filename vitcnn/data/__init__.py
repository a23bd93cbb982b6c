"""Data: sources of images, their preprocessing, and the order in which they are read.

A source (`sources`) gives images by index; `subset` takes some of them. `order` permutes their
indices, `preprocess` resizes and crops, `augment` changes training images at random, and `pipeline`
puts these together: `groups` to measure, `batches` to train on. `pool` loads them ahead, in threads
or processes.
"""

from vitcnn.data.contact_sheet import contact_sheet
from vitcnn.data.order import order
from vitcnn.data.pipeline import batches, groups
from vitcnn.data.preprocess import Preprocess
from vitcnn.data.sources import load
from vitcnn.data.subset import few_shot, stratified, subrange

__all__ = [
    "Preprocess",
    "batches",
    "contact_sheet",
    "few_shot",
    "groups",
    "load",
    "order",
    "stratified",
    "subrange",
]
