#!/usr/bin/env bash
# Makes an environment, installs vitcnn with what the tests need, and runs style checks and tests.
#   ./scripts/test.sh           everything that CI runs
#   ./scripts/test.sh --slow    also the checks with real weights at full size
# Other arguments go to pytest: ./scripts/test.sh tests/similarity -k outlier
# VENV chooses the folder of the environment, TORCH the torch to install: it is only an oracle.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv-test}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "${TORCH:-torch==2.13.0}"
"$venv/bin/pip" install --quiet --disable-pip-version-check -e ".[dev]"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
arguments=(-m "not slow")
for argument in "$@"; do
  if [ "$argument" = --slow ]; then arguments=("${arguments[@]:2}"); else arguments+=("$argument"); fi
done
# Two processes, each with whole files of tests: most of the time is compilation, on one core.
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "${arguments[@]}"
