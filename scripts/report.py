"""Makes the report of one or several workdirs: claims, figures, tables, and one HTML page.

    python scripts/report.py --workdir=runs/cifar10_pair

It reads the results (<analysis>.nc) alone: models, weights and images may be elsewhere by now.
"""

import logging

from absl import app, flags

from vitcnn import claims, report

WORKDIR = flags.DEFINE_list("workdir", None, "Folders with results, separated by commas.")
OUT = flags.DEFINE_string("out", "", "Folder to write into; <first workdir>/report if not given.")


def main(_):
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # talks of every letter of a PDF
    results = report.read(WORKDIR.value)
    page = report.write(results, OUT.value or f"{WORKDIR.value[0]}/report")
    found = claims.all_claims(results)
    for claim in found:
        print(f"{claim}\n")
    if not found:
        print("No claim to judge: they compare the CKA of a ViT with that of a ResNet.")
    print(f"report: {page}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
