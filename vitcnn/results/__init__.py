"""Results (`datasets`), the folder of a run (`workdir`), and versions (`environment`)."""

from vitcnn.results.datasets import load, load_all, load_steps, provenance, save, stamp, summary

__all__ = ["load", "load_all", "load_steps", "provenance", "save", "stamp", "summary"]
