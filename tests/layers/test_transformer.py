"""Attention within a radius, by itself."""

import pytest

from vitcnn.layers import transformer


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("prefix", [0, 3])
def test_patches_read_the_square_around_them_and_prefix_tokens_read_all(radius, prefix):
    rows, columns = 3, 5
    reads = transformer.local_attention((rows, columns), prefix, radius)
    assert reads.shape == (prefix + 15, prefix + 15)
    for query in range(prefix + 15):
        for key in range(prefix + 15):
            if query < prefix:
                expected = True
            elif key < prefix:
                expected = False
            else:
                (r, c), (s, d) = (divmod(token - prefix, columns) for token in (query, key))
                expected = abs(r - s) <= radius and abs(c - d) <= radius
            assert reads[query, key] == expected
