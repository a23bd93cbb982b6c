"""Fixed position embeddings against their formula."""

import math

import numpy as np

from vitcnn.layers import positions


def test_sines_and_cosines_of_the_column_and_of_the_row():
    table = positions.sincos2d((3, 5), 16)
    assert table.shape == (15, 16) and table.dtype == np.float32
    for row in range(3):
        for column in range(5):
            x, y = ([place / 10_000 ** (k / 3) for k in range(4)] for place in (column, row))
            expected = [
                *(math.sin(angle) for angle in x),
                *(math.cos(angle) for angle in x),
                *(math.sin(angle) for angle in y),
                *(math.cos(angle) for angle in y),
            ]
            np.testing.assert_allclose(table[5 * row + column], expected, atol=1e-7)
