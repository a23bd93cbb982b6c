"""Linear probes: the features that they read, how they are scored, and the folds of read-outs."""
