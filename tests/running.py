"""Loads scripts and configs by path, and runs scripts in processes of their own, for the tests."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
from absl import flags

ROOT = pathlib.Path(__file__).parents[1]
_OF_SCRIPTS: set[str] = set()  # names of the flags of the scripts that were loaded


def load(path):
    """Imports a Python file that is in no package, such as a config file or a script.

    Scripts have processes of their own and may define the same flags, so a script takes the place
    of those that were loaded before.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    others = set(flags.FLAGS) - _OF_SCRIPTS
    try:
        spec.loader.exec_module(module)
    except flags.DuplicateFlagError:
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - others)
        spec.loader.exec_module(module)
    _OF_SCRIPTS.update(set(flags.FLAGS) - others)
    return module


def environment(devices=1):
    """Returns the variables of a process on `devices` CPU devices."""
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}


def add_xla_flags(*flags):
    """Adds flags to XLA_FLAGS if this XLA has them: it ends a process with a flag that it lacks."""
    before = os.environ.get("XLA_FLAGS", "").split()
    flags = [f"--{flag}" for flag in flags if f"--{flag}" not in before]
    if not flags:  # a process of the tests, which another has started
        return
    changed = {"XLA_FLAGS": " ".join([*before, *flags])}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    if subprocess.run(command, env=environment() | changed, capture_output=True).returncode == 0:
        os.environ.update(changed)


def analyze(config, workdir, *flags, devices=1, check=True):
    """Runs scripts/analyze.py on a config of configs/analyze, on `devices` CPU devices."""
    return subprocess.run(
        [*command(config, workdir), *flags],
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        check=check,
        timeout=600,
    )


def command(config, workdir):
    """Returns the command of `analyze`."""
    config = f"--config=configs/analyze/{config}"
    return [sys.executable, "scripts/analyze.py", config, f"--workdir={workdir}"]


def groups_saved(progress_file):
    """Returns how many groups are in the file that a stopped run left, 0 if there is no file."""
    try:
        with np.load(progress_file) as arrays:
            return int(arrays["groups_done"])
    except FileNotFoundError:
        return 0
