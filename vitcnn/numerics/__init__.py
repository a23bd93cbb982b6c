"""Exact sums, statistics and ridge regression; nothing here knows about networks."""
