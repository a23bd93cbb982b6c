"""Fixtures of every test."""

import os
import pathlib
import tempfile

import pytest

# Compiled programs are shared by the tests and by the processes that they start. Before jax is
# imported, because it reads these when it starts.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="vitcnn-tests-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# Annotations of these rooms are checked, with the shapes in them, in every call that a test makes.
# The hook comes before the first import of vitcnn.
import jaxtyping

jaxtyping.install_import_hook(["vitcnn.layers", "vitcnn.models"], "checked.typechecker")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real images and weights that lies beside the repository, where there is one."""
    path = pathlib.Path(__file__).parents[1] / "../shared/data"
    if not path.is_dir():
        pytest.skip(f"real images and weights are not here: {path} is absent")
    return path
