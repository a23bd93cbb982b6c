#!/usr/bin/env bash
# From nothing to a report, offline after the installation: a small ViT and a small ResNet are
# trained on procedural scenes, compared layer by layer, and described in report/index.html.
# A run that was stopped goes on where it was. VENV and RUNS choose other folders.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
if [ ! -x "$venv/bin/vitcnn-installed" ]; then
  python3 -m venv "$venv"
  echo "installing vitcnn into $venv ..."
  "$venv/bin/pip" install --quiet --disable-pip-version-check -e .
  ln -s python "$venv/bin/vitcnn-installed"
fi
python="$venv/bin/python"
for network in vit resnet; do
  "$python" scripts/train.py --config="configs/train/scenes.py:$network" \
    --workdir="runs/scenes/$network"
done
"$python" scripts/analyze.py --config=configs/analyze/scenes.py --workdir=runs/scenes/pair
"$python" scripts/report.py --workdir=runs/scenes/pair --out=report
