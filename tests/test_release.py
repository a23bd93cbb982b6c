"""A wheel, built from the source distribution, runs an analysis in an empty environment."""

import pathlib
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
import running

pytestmark = pytest.mark.slow


def run(*command, **options):
    process = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, made from a copy of the checkout, which stays clean."""
    folder = tmp_path_factory.mktemp("sdist")
    tracked = run("git", "ls-files", "-co", "--exclude-standard", cwd=running.ROOT).splitlines()
    for name in tracked:
        if (running.ROOT / name).is_file():
            copy = folder / "checkout" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((running.ROOT / name).read_bytes())
    code = "from setuptools import build_meta; build_meta.build_sdist('../dist')"
    run(sys.executable, "-c", code, cwd=folder / "checkout")
    (archive,) = (folder / "dist").glob("vitcnn-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q")
    run(*pip, "-w", folder, sdist)
    (file,) = folder.glob("vitcnn-*.whl")
    return file


def shipped():
    folders = [running.ROOT / folder for folder in ("configs", "scripts")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc"]
    return {str(path.relative_to(running.ROOT)) for path in paths if path.is_file()}


def test_wheel_and_sdist_have_package_configs_and_scripts(sdist, wheel):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped() <= names and "tests/conftest.py" in names
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"vitcnn/shipped/{name}" for name in shipped()} <= names
    package = [p for p in (running.ROOT / "vitcnn").rglob("*") if p.suffix != ".pyc"]
    assert {str(p.relative_to(running.ROOT)) for p in package if p.is_file()} <= names
    assert not any(name.startswith(("tests/", "configs/", "scripts/")) for name in names)


def test_the_wheel_runs_an_analysis_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "environment", with_pip=True)
    python = tmp_path / "environment/bin/python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    options = {"cwd": tmp_path, "env": environment}
    where = run(python, "-c", "import vitcnn; print(vitcnn.__file__)", **options)
    assert pathlib.Path(where.strip()).is_relative_to(tmp_path)
    assert "configs/analyze/scenes.py" in run(python, "-m", "vitcnn", **options)
    config = "--config=configs/analyze/scenes.py:smallest"
    output = run(python, "-m", "vitcnn", "analyze", config, "--workdir=run", **options)
    assert "results: run/*.nc" in output and (tmp_path / "run/cka.nc").is_file()
    run(python, "-m", "vitcnn", "report", "--workdir=run", **options)
    assert (tmp_path / "run/report/index.html").is_file()
