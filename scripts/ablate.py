"""Trains the networks of an ablation over several seeds, measures them, and compares the runs.

    python scripts/ablate.py --config=configs/ablations/skips.py:vit,mini --workdir=runs/skips_vit

It prints the budget first. The same command again goes on wherever it was stopped. The flag --list
prints one command for each network to train, and --run=NAME or --run=NAME/SEED trains these only,
so that the scheduler of a cluster can spread them over machines that share the workdir; the command
without --run then measures and compares. A flag after --config can set any field of the config:
--config.seeds=5, --config.baseline.steps=800. --help after --config=... lists the fields. The exit
code is 75 if a signal has stopped it.
"""

import shlex
import sys

from absl import flags

from vitcnn import ablations, command_line, training

LIST = flags.DEFINE_bool("list", False, "Print one command for each network, and do nothing.")
RUN = flags.DEFINE_string("run", "", "Train only this run, or one seed of it: NAME or NAME/SEED.")


def main(config, workdir):
    if LIST.value:
        arguments = [a for a in sys.argv if a.lstrip("-") not in ("list", "list=true")]
        for network in ablations.networks(config, workdir):
            print(shlex.join(["python", *arguments, f"--run={network}"]))
        return
    try:
        results = ablations.ablate(config, workdir, run=RUN.value)
    except training.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(training.EXIT_CODE)
    if command_line.is_first_host() and results:
        print(ablations.table(results))
        print(f"results: {workdir}/*.nc")


if __name__ == "__main__":
    command_line.run(main)
