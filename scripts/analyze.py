"""Measures the models of a config in one pass over the images, and saves <analysis>.nc files.

    python scripts/analyze.py --config=configs/analyze/cifar10_pair.py --workdir=runs/cifar10_pair

A flag after --config can set any field of the config: --config.group=256. --help after --config=...
lists the fields. The same command again resumes a run that was stopped. On several hosts, add
--coordinator=auto (Cloud TPU), or --coordinator=HOST:PORT --processes=N --process=I.
"""

from vitcnn import analyze, command_line, results


def main(config, workdir):
    datasets = analyze(config, workdir)
    if command_line.is_first_host():
        for name, dataset in datasets.items():
            print(results.summary(name, dataset))
        print(f"results: {workdir}/*.nc")


if __name__ == "__main__":
    command_line.run(main)
