"""Linear probes: the features that they read (`features`), and how they are scored."""
