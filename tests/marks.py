"""Marks of single parameters of a test."""

import pytest


def slow(*values):
    """Returns the values of a parametrised test for ./scripts/test.sh --slow alone."""
    return pytest.param(*values, marks=pytest.mark.slow)
