"""Numbers: exact sums, statistics and ridge regression; nothing here knows of networks."""
