"""Results: what was measured (`datasets`), the folder of a run (`workdir`), and `provenance`."""

from vitcnn.results.datasets import load, load_all, provenance, save, stamp, summary

__all__ = ["load", "load_all", "provenance", "save", "stamp", "summary"]
