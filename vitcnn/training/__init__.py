"""Training: one loop for every model; an experiment is a config."""

from vitcnn.training.loop import train

__all__ = ["train"]
