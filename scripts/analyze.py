"""Measures models by a config, in one pass over the images, and saves one <analysis>.nc each.

    python scripts/analyze.py --config=configs/analyze/cifar10_pair.py --workdir=runs/cifar10_pair

Any field of the config can be set behind it: --config.group=256. The same command again resumes a
run that was stopped. On several hosts add --coordinator=auto (Cloud TPU), or
--coordinator=HOST:PORT --processes=N --process=I.
"""

from absl import app, flags, logging
from ml_collections import config_flags

from vitcnn import parallel, results
from vitcnn.engine import analyze

CONFIG = config_flags.DEFINE_config_file("config", None, "What to measure.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for results and resuming.")
COORDINATOR = flags.DEFINE_string("coordinator", "", '"auto", or host:port of process 0.')
PROCESSES = flags.DEFINE_integer("processes", 1, "Number of host processes.")
PROCESS = flags.DEFINE_integer("process", 0, "Index of this host process.")


def main(_):
    logging.set_verbosity(logging.WARNING)
    parallel.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    measured = analyze.analyze(CONFIG.value, WORKDIR.value)
    if parallel.host()[0] == 0:
        for name, dataset in measured.items():
            print(results.summary(name, dataset))
        print(f"results: {WORKDIR.value}/*.nc")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
