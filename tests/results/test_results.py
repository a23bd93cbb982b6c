"""Results: written atomically, read back whole, workdirs claimed."""

import errno
import io
import json
import os
import pathlib
import stat
import subprocess

import numpy as np
import pytest
import xarray

from vitcnn import lookup, parallel, results, storage
from vitcnn.results import environment
from vitcnn.results import workdir as run_folder


@pytest.fixture
def dataset():
    return xarray.Dataset(
        {"cka": (("layer_x",), np.array([0.5, np.nan, -0.01]), {"units": "1", "long_name": "CKA"})},
        {"layer_x": ["a/b", "c", "d"]},
    )


def test_what_is_saved_is_read_back(dataset, tmp_path):
    stamped = results.stamp(dataset, {"group": 4, "models": {"v": {"family": "vit"}}})
    results.save(stamped, tmp_path / "cka.nc")
    again = results.load(tmp_path / "cka.nc")
    xarray.testing.assert_equal(dataset, again)
    assert again.cka.attrs == {"units": "1", "long_name": "CKA"}
    assert results.provenance(again)["models"]["v"]["family"] == "vit"
    assert list(results.load_all(tmp_path)) == ["cka"]
    assert [path.name for path in tmp_path.iterdir()] == ["cka.nc"]


def test_files_that_are_no_results_are_named(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no result .*none.nc"):
        results.load(tmp_path / "none.nc")
    with pytest.raises(FileNotFoundError, match=r"run scripts/analyze.py first"):
        results.load_all(tmp_path)
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(ValueError, match=r"text.nc is not a readable netCDF file"):
        results.load(tmp_path / "text.nc")
    dataset.to_netcdf(tmp_path / "bare.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="no `provenance` attribute"):
        results.load(tmp_path / "bare.nc")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    storage.write_json(path, {"old": 1})

    def fails():
        with storage.atomic(path) as partial:
            partial.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fails()
    assert json.loads(path.read_text()) == {"old": 1} and os.listdir(tmp_path) == ["a.json"]


def test_files_have_the_usual_permissions(tmp_path):
    storage.write_json(tmp_path / "a.json", {})
    (tmp_path / "b").write_text("")

    def mode(name):
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    assert mode("a.json") == mode("b")


def test_a_workdir_belongs_to_one_run(tmp_path):
    run = {"config": {"group": 4, "taps": ("a", "b"), "empty": {}}, "data": {"size": 3}}
    workdir = run_folder.claim_workdir(tmp_path / "new", run)
    storage.write_json(workdir / "run.json", run)
    assert run_folder.claim_workdir(workdir, run) == workdir
    assert run_folder.claim_workdir(workdir, {"config": run["config"]}) == workdir
    changed = {"config": {"group": 5, "taps": ("a", "b"), "empty": {}, "new": 1}}
    with pytest.raises(ValueError, match="holds another run") as error:
        run_folder.claim_workdir(workdir, changed)
    assert "config.group: 4 there, 5 here" in str(error.value)
    assert "config.new: '(not set)' there, 1 here" in str(error.value)
    assert "taps" not in str(error.value)


def test_entries_that_decide_no_number_may_differ(tmp_path):
    run = {"config": {"data": {"path": "/a", "image": "x"}}}
    storage.write_json(tmp_path / "run.json", run)
    moved = {"config": {"data": {"path": "/b", "image": "x"}}}
    run_folder.claim_workdir(tmp_path, moved, {"config.data.path"})
    with pytest.raises(ValueError, match=r"config.data.path: '/a' there, '/b' here"):
        run_folder.claim_workdir(tmp_path, moved)
    # What an older run.json does not say cannot be compared, and is no match.
    with pytest.raises(ValueError, match=r"images_sha256.cka: '\(not set\)' there, '12' here"):
        run_folder.claim_workdir(tmp_path, {**run, "images_sha256": {"cka": "12"}})


@pytest.mark.parametrize(
    "path",
    ["gs:///r", "hdfs://h/r", "file:///tmp/run", pathlib.Path("gs://b/r")],
)
def test_a_workdir_at_an_address_that_cannot_be_one_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (run_folder.claim_workdir, results.load_all, results.load):
        with pytest.raises(
            ValueError, match=r"address with|names no bucket|unknown scheme|file://"
        ):
            read(path) if read is not run_folder.claim_workdir else read(path, {})
    assert not os.listdir(tmp_path)


def test_a_workdir_is_a_folder_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file; give the path of a folder"):
        run_folder.claim_workdir(tmp_path / "file", {})
    with pytest.raises(ValueError, match="workdir is empty"):
        run_folder.claim_workdir("", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder.claim_workdir("~/runs", {}) == tmp_path / "runs"
    (tmp_path / "runs/run.json").write_text('{"config": ')
    with pytest.raises(ValueError, match=r"run.json is damaged"):
        run_folder.claim_workdir(tmp_path / "runs", {})


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")]
)
def test_a_full_or_read_only_disk_is_told_at_once(tmp_path, monkeypatch, number, message):
    class Disk(io.BytesIO):
        def write(self, content):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", lambda dir: Disk())
    with pytest.raises(OSError, match=f"workdir .* cannot be written: {message}"):
        run_folder.claim_workdir(tmp_path, {})


def test_versions_name_the_libraries():
    found = environment.versions()
    assert {"python", "jax", "flax", "numpy", "vitcnn", "revision"} <= set(found)


def test_a_checkout_has_a_revision():
    git = ["git", "-C", str(pathlib.Path(__file__).parents[2]), "rev-parse", "HEAD"]
    run = subprocess.run(git, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip("the tests are not in a git checkout")
    revision = environment.versions()["revision"]
    assert revision.removesuffix("+changes") == run.stdout.strip()


def test_nearest_names():
    with pytest.raises(ValueError, match="unknown colour 'gren': did you mean 'green'"):
        lookup.check_name("colour", "gren", ["red", "green", "blue"])
    assert lookup.nearest("x", []) == "there is none"
    assert lookup.nearest("zzz", ["a", "b"]) == "the choices are 'a', 'b'"


def test_one_host_meets_itself():
    sent = {"a": np.array([1e-300, 1.0])}
    (received,) = parallel.meet(sent)
    np.testing.assert_array_equal(received["a"], sent["a"])
    assert parallel.host() == (0, 1)
    with pytest.raises(ValueError, match="expected 0 <= process < processes = 2"):
        parallel.start("localhost:1", processes=2, process=2)


def test_summary_has_scalars_with_errors_arrays_by_shape_and_nothing_that_is_nan():
    dataset = xarray.Dataset(
        {
            "top1": 0.25,
            "top1_standard_error": 0.125,
            "right": 5,
            "cka": (("x", "y"), [[1.0, np.nan]]),
            "phases": np.nan,
            "ratio_class": ("x", [np.nan]),
        }
    )
    expected = ["accuracy.vit:", "  top1 = 0.2500 +- 0.1250", "  right = 5", "  cka [1 x 2]"]
    assert results.summary("accuracy.vit", dataset).splitlines() == expected
