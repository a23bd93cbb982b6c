"""Training: one loop for every model; an experiment is a config."""

from vitcnn.training.config import defaults
from vitcnn.training.loop import train

__all__ = ["defaults", "train"]
