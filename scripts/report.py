"""Writes the report of one or several workdirs: claims, figures, tables, and one HTML page.

    python scripts/report.py --workdir=runs/cifar10_pair

Of ablations it draws the differences between runs, with intervals over seeds, and judges claims on
training. Of the workdir of a training run it draws what the evaluations measured, over the steps.

The report needs only the results (<analysis>.nc), not the models, weights or images.
"""

import logging

from absl import flags

from vitcnn import claims, command_line, report
from vitcnn.report import ablation, growth

WORKDIR = flags.DEFINE_list("workdir", None, "Folders with results, separated by commas.")
OUT = flags.DEFINE_string("out", "", "Folder to write into; the default is <first workdir>/report.")


def main(_):
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # logs every letter of a PDF
    out = OUT.value or f"{WORKDIR.value[0]}/report"
    if growth.has_evaluations(WORKDIR.value[0]):
        for name in growth.write(WORKDIR.value[0], out):
            print(f"{out}/{name}")
        return
    results = report.read(WORKDIR.value)
    is_ablation = ablation.is_ablation(results)
    page = None if is_ablation else report.write(results, out)
    verdicts = claims.all_claims(results)
    for claim in verdicts:
        print(f"{claim}\n")
    if is_ablation:
        for name in ablation.write(results, out):
            print(f"{out}/{name}")
        return
    if not verdicts:
        print('No claim to judge: most compare a model of kind "vit" with one of kind "cnn".')
    print(f"report: {page}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    command_line.run_without_config(main)
