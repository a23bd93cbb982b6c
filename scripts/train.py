"""Trains one network by a config.

    python scripts/train.py --config=configs/train/scenes.py:vit --workdir=runs/scenes_vit

Any field of the config can be set behind it: --config.steps=500. The same command again resumes a
run that was stopped. On several hosts add --coordinator, see scripts/analyze.py.
"""

from absl import app, flags, logging
from ml_collections import config_flags

from vitcnn import parallel, training

CONFIG = config_flags.DEFINE_config_file("config", None, "What to train.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, weights and logs.")
COORDINATOR = flags.DEFINE_string("coordinator", "", '"auto", or host:port of process 0.')
PROCESSES = flags.DEFINE_integer("processes", 1, "Number of host processes.")
PROCESS = flags.DEFINE_integer("process", 0, "Index of this host process.")


def main(_):
    logging.set_verbosity(logging.WARNING)
    parallel.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    training.train(CONFIG.value, WORKDIR.value)
    if parallel.host()[0] == 0:
        print(f"weights and run.json: {WORKDIR.value}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
