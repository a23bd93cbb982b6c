"""Training: one loop for every model; an experiment is a config.

Read the files in this order:

- `start`: what a run is and where it begins, checked before any long work;
- `loop`: the steps, one after the other;
- `step`: one step; its parts are in `vitcnn.recipe`;
- `remat`: a network that computes the inside of its blocks twice, to save memory;
- `state` and `checkpoints`: what a step changes, and what a stopped run resumes from;
- `stop`: signals;
- `evaluate`: engine jobs on the network so far;
- `log`, `tensorboard` and `flops`: the numbers of a run.
"""

from vitcnn.training.loop import train
from vitcnn.training.stop import EXIT_CODE, Stopped

__all__ = ["EXIT_CODE", "Stopped", "train"]
