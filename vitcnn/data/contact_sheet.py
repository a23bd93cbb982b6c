"""A contact sheet: the first images of a source side by side."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import UInt8


def contact_sheet(
    source: Any, rows: int, columns: int, by_class: bool = False, gap: int = 2
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the first images of a source side by side on white.

    Args:
      source: images by index; each is centred in a cell of the size of the largest.
      rows, columns: number of rows and columns; cells without an image stay white.
      by_class: whether column c shows the first images of class c, instead of all images in order.
      gap: number of pixels between images.
    """
    cells = {}
    if by_class:
        next_row = {label: itertools.count() for label in range(columns)}
        for example in (source[i] for i in range(len(source))):
            label = example["label"]
            row = next(next_row[label]) if label in next_row else rows
            if row < rows:
                cells[row, label] = example["image"]
                if len(cells) == rows * columns:
                    break
    else:
        for i in range(min(len(source), rows * columns)):
            cells[divmod(i, columns)] = source[i]["image"]
    height, width = np.max([image.shape[:2] for image in cells.values()] or [(1, 1)], axis=0) + gap
    sheet = np.full((rows * height + gap, columns * width + gap, 3), 255, np.uint8)
    for (row, column), image in cells.items():
        h, w = image.shape[:2]
        top = row * height + gap + (height - gap - h) // 2
        left = column * width + gap + (width - gap - w) // 2
        sheet[top : top + h, left : left + w] = image
    return sheet
