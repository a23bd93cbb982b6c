"""Loads scripts and configs by path, and runs scripts in processes of their own, for the tests."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]


def load(path):
    """Imports a Python file that is in no package, such as a config file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(devices=1):
    """Returns the variables of a process on `devices` CPU devices.

    XLA compiles without most of its optimisations, which takes half the time: these processes run
    whole configs on few images. Their numbers are compared with those of other such processes.
    """
    return {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }


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
