"""Figures: Results in, a matplotlib figure out, in one style.

Depth runs from input to output: left to right, bottom to top. Every CKA panel has the same colour
scale, 0 to 1. The title of a panel comes from the provenance of its Result. Figures do not use
pyplot, so nothing global changes and nothing has to be closed. matplotlib is imported only to draw.
"""

from vitcnn.figures._correspondence import correspondence
from vitcnn.figures._curves import curves
from vitcnn.figures._describe import describe_images, describe_model, kind, origin
from vitcnn.figures._heatmaps import Panel, heatmaps, panels
from vitcnn.figures._intervals import intervals
from vitcnn.figures._maps import Map, maps
from vitcnn.figures._style import png, save
from vitcnn.figures._tap_titles import tap_titles
from vitcnn.figures._ticks import ticks
from vitcnn.figures._tokens import tokens

__all__ = [
    "Map",
    "Panel",
    "correspondence",
    "curves",
    "describe_images",
    "describe_model",
    "heatmaps",
    "intervals",
    "kind",
    "maps",
    "origin",
    "panels",
    "png",
    "save",
    "tap_titles",
    "ticks",
    "tokens",
]
