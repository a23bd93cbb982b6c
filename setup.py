"""Metadata and dependencies of vitcnn. Tool settings are in pyproject.toml."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "vitcnn/__init__.py").read_text())[1]
# Folders beside the package that users need, and that a wheel has in vitcnn/shipped.
SHIPPED = ("configs", "scripts")


class BuildWithFolders(build_py):
    """Copies the folders into the package that is built; an editable install reads the checkout."""

    def run(self):
        """Copies, once the package is in the folder of the build."""
        super().run()
        if self.editable_mode:
            return
        shipped = pathlib.Path(self.build_lib) / "vitcnn/shipped"
        shutil.rmtree(shipped, ignore_errors=True)  # an earlier build may have had other files
        for folder in SHIPPED:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(here / folder, shipped / folder, ignore=ignore)


setup(
    name="vitcnn",
    version=version,
    description="How vision transformers and CNNs see, measured: Raghu et al. 2021 in JAX/Flax.",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vitcnn", "vitcnn.*"]),
    cmdclass={"build_py": BuildWithFolders},
    package_data={
        "vitcnn": [
            *("checkpoints/*.tsv", "checkpoints/*/*.tsv", "data/*.txt", "report/*.html"),
            "py.typed",
        ]
    },
    install_requires=[
        "absl-py",
        "array_record>=0.8.3",
        "etils[epath]",
        "flax>=0.12",
        "fsspec",
        "h5netcdf",
        "h5py",
        "jax>=0.10",
        "jaxtyping",
        "jinja2",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax",
        "orbax-checkpoint",
        "pillow>=10",
        "tensorflow-datasets>=4.9.7",
        "threadpoolctl",
        "tqdm",
        "xarray",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda12]"],
        "gcs": ["etils[epath-gcs]"],
        "torch": ["torch"],
        "hub": ["huggingface_hub"],
        "tfds": ["tensorflow"],
        "tensorboard": ["tensorboardX"],
        "colabs": ["ipykernel", "nbclient", "nbconvert"],  # for scripts/render_colabs.py
        "dev": ["beartype", "ipykernel", "nbclient", "pytest", "pytest-xdist", "ruff"],
        # Libraries that ./scripts/test.sh --oracles compares with.
        "oracles": ["huggingface_hub", "keras", "safetensors", "timm", "torch", "transformers>=5"],
    },
)
