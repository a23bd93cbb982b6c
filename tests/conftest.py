"""Fixtures of every test."""

import os
import pathlib
import tempfile

import pytest
import running

# Compiled programs are shared by the tests and by the processes that they start. Before jax is
# imported, because it reads these when it starts.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="vitcnn-tests-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Each process of the tests has one core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Programs here see few images, and most of the time of the tests is compilation: with most
# optimizations off it takes an eighth. At 0 all programs are compiled as they are for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    running.add_xla_flags(
        "xla_cpu_use_fusion_emitters=false", "xla_cpu_parallel_codegen_split_count=1"
    )

import jaxtyping


def modules(package: pathlib.Path) -> set[str]:
    """Returns the names of the modules of a package without those that are packages themselves."""
    files = [file.relative_to(package.parent).with_suffix("") for file in package.rglob("*.py")]
    return {".".join(file.parts) for file in files if file.name != "__init__"}


# Annotations are checked, with the shapes in them, in every call that a test makes. The hook comes
# before the first import of vitcnn, and leaves out:
EXEMPT = {
    # their dataclasses are pytrees, which JAX also fills with shapes and with placeholders;
    "vitcnn.numerics.exact",
    "vitcnn.similarity.gram",
    "vitcnn.similarity.hsic",
    "vitcnn.training.state",
    # their functions check what users give them and raise a ValueError that says more.
    "vitcnn.data.preprocess",
    "vitcnn.data.sources.scenes",
    "vitcnn.engine.compare",
    "vitcnn.model",
    "vitcnn.similarity.maps",
    "vitcnn.taps",
    # their tests hand them stand-ins for parts of a Group or a Config.
    "vitcnn.analyses.attention_distance",
    "vitcnn.analyses.probe",
    "vitcnn.analyses.probe_fit",
    "vitcnn.analyses.receptive_field",
    "vitcnn.analyses.similarity",
    "vitcnn.analyses.skip_ratio",
}
PACKAGE = pathlib.Path(__file__).parents[1] / "vitcnn"
jaxtyping.install_import_hook(sorted(modules(PACKAGE) - EXEMPT), "checked.typechecker")


# Files of one long test or of long fixtures.
LONG = ("test_devices", "test_family_from_outside", "test_loop", "test_real_weights")


def pytest_collection_modifyitems(items):
    """Puts the long files first, so that both processes end at about the same time."""
    items.sort(key=lambda item: LONG.index(stem) if (stem := item.path.stem) in LONG else len(LONG))


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real images and weights that lies beside the repository, where there is one."""
    path = pathlib.Path(__file__).parents[1] / "../shared/data"
    if not path.is_dir():
        pytest.skip(f"real images and weights are not here: {path} is absent")
    return path
