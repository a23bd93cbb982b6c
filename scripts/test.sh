#!/usr/bin/env bash
# Makes an environment, installs vitcnn with what the tests need, and runs style checks and tests.
#   ./scripts/test.sh             everything that CI runs for each commit
#   ./scripts/test.sh --slow      also the checks with real weights at full size
#   ./scripts/test.sh --oracles   only the comparisons with timm, transformers and Keras themselves
# Other arguments go to pytest: ./scripts/test.sh tests/similarity -k outlier
# VENV chooses the folder of the environment, TORCH the torch to install.
# JAX_COMPILATION_CACHE_DIR keeps compiled programs between runs; without it they last for one run.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 compiles as users do, like --slow and --oracles; the first form
# has most optimizations off, which saves half of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
marker="not slow and not oracle" extras=dev default_venv=.venv-test
packages=("${TORCH:-torch==2.13.0}") arguments=()
for argument in "$@"; do
  case "$argument" in
    --slow) marker="not oracle" ;;
    # torch and torchvision have to fit each other, so pip chooses both.
    --oracles) marker=oracle extras=dev,oracles default_venv=.venv-oracles packages=() ;;
    *) arguments+=("$argument") ;;
  esac
done
venv=${VENV:-$default_venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
for package in ${packages[@]+"${packages[@]}"}; do
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$package"
done
"$venv/bin/pip" install --quiet --disable-pip-version-check -e ".[$extras]"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
[ "$marker" = "not slow and not oracle" ] || export JAX_DISABLE_MOST_OPTIMIZATIONS=0
# Two processes, each with whole files of tests: most of the time is compilation, on one core.
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$marker" \
  ${arguments[@]+"${arguments[@]}"}
