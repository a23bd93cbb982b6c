"""Trains the network of a config.

    python scripts/train.py --config=configs/train/scenes.py:vit --workdir=runs/scenes_vit

A flag after --config can set any field of the config: --config.steps=500. --help after --config=...
lists the fields. The same command again resumes a run that was stopped. SIGTERM and Ctrl-C let the
run save its state first; the exit code is then 75, and it is 0 only if the training has ended. On
several hosts, add --coordinator as scripts/analyze.py describes.
"""

import sys

from vitcnn import command_line, training


def main(config, workdir):
    try:
        training.train(config, workdir)
    except training.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(training.EXIT_CODE)
    if command_line.is_first_host():
        print(f"weights and run.json: {workdir}")


if __name__ == "__main__":
    command_line.run(main)
