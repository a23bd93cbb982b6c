#!/usr/bin/env bash
# A smoke run on the newest Python that this machine has, with the newest JAX that pip finds for it:
# what setup.py promises. It compiles as users do, unlike ./scripts/test.sh. It takes about two
# minutes, and does nothing where no Python is newer than the one of ./scripts/test.sh.
#   ./scripts/smoke.sh                   newest Python, newest JAX
#   PYTHON=/path/to/python ./scripts/smoke.sh
#   ./scripts/smoke.sh tests             other arguments go to pytest: here the whole suite
# VENV chooses the folder of the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

newest() {
  for minor in 15 14 13 12; do
    for python in "python3.$minor" "$HOME"/.pyenv/versions/3."$minor".*/bin/python; do
      if "$python" -c "import venv, ssl" > /dev/null 2>&1; then
        echo "$python"
        return
      fi
    done
  done
}

python=${PYTHON:-$(newest)}
if [ -z "$python" ]; then
  echo "smoke: no Python 3.12 or newer here; nothing to run"
  exit 0
fi
export JAX_DISABLE_MOST_OPTIMIZATIONS=${JAX_DISABLE_MOST_OPTIMIZATIONS:-0}
venv=${VENV:-.venv-smoke}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -e . beartype pytest pytest-xdist
"$venv/bin/python" -c "
import jax, sys
print('smoke: Python', sys.version.split()[0], 'and JAX', jax.__version__)"
if [ $# -gt 0 ]; then
  exec "$venv/bin/python" -m pytest -q -n 2 --dist loadfile -m "not slow and not oracle" "$@"
fi
# Taps, similarity, models and configs: they touch every part of JAX and Flax that the package uses.
exec "$venv/bin/python" -m pytest -q -n 2 --dist loadfile -m "not slow and not oracle" \
  tests/test_taps.py tests/test_configs.py tests/similarity/test_cka.py tests/engine/test_sums.py
