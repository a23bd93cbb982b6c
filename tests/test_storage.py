"""Storage: the one room of paths, and what it does with a bucket that fails."""

import ast
import json
import pathlib

import numpy as np
import object_store
import pytest
from object_store import Store

from vitcnn import storage

PACKAGE = pathlib.Path(storage.__file__).parent
# These make paths of what another library or this package returns, never of a user's text.
OWN_PATHS = {"storage.py", "checkpoints/fetch/hub.py", "checkpoints/fetch/bucket.py"} | {
    "config/files.py"  # Python imports config files from this machine
}
OWN_TEXTS = ("__file__", "entry.path", "rev-parse", "co_filename")  # what Python or git says


@pytest.fixture
def bucket(tmp_path):
    """The address gs://bucket, whose PUTs fail half of the time and whose listings are late."""
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    object_store.install(tmp_path / "buckets", failures=0.5, delay=60.0)
    yield storage.as_path("gs://bucket", "workdir")
    object_store.uninstall()


def objects(bucket):
    return object_store.contents(Store.root)


def test_no_other_file_makes_a_path_of_a_text():
    for file in sorted(PACKAGE.rglob("*.py")):
        inside = str(file.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or inside in OWN_PATHS:
                continue
            call = ast.unparse(node)
            own = (
                "__file__" in call
                or "entry.path" in call
                or "rev-parse" in call
                or "co_filename" in call
            )
            assert own or not call.startswith("pathlib.Path("), f"{inside}: {call}"
            assert not call.startswith("open("), f"{inside}: {call}"


def test_a_path_of_this_machine_is_one_of_pathlib(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.as_path("~/a/b", "workdir") == tmp_path / "a/b"
    assert isinstance(storage.as_path("a:b", "workdir"), pathlib.Path)
    assert storage.as_path("gs", "workdir") == pathlib.Path("gs")


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (" ", ValueError, "workdir is empty"),
        (
            pathlib.Path("gs://b/run"),
            ValueError,
            r"one slash: give it as text, gs://b/run,",
        ),
        ("gs:///run", ValueError, r"names no bucket: expected gs://bucket/folder"),
        (
            "hdfs://h/run",
            ValueError,
            r"unknown scheme hdfs://: expected gs://, s3://, az://, hf://",
        ),
        ("file:///tmp/run", ValueError, r"without file://"),
        ("gs://secret/run", PermissionError, r"'secret' refuses access \(Forbidden.*gcloud auth"),
    ],
)
def test_an_address_that_cannot_be_one_is_named(bucket, address, error, message):
    with pytest.raises(error, match=message):
        storage.as_path(address, "workdir")


def test_a_missing_library_is_named(bucket, monkeypatch):
    def missing(*_, **__):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(Store, "info", missing)
    with pytest.raises(ImportError, match=r'pip install "vitcnn\[gcs\]"'):
        storage.as_path("gs://bucket/run", "workdir")


def test_a_bucket_that_does_not_exist_is_named_and_not_made(bucket):
    absent = storage.as_path("gs://none/run", "workdir")
    storage.make_folder(absent)
    assert not storage.exists(absent) and storage.read(absent) is None
    with pytest.raises(FileNotFoundError, match=r"workdir gs://none/run cannot be written: the"):
        storage.claim_folder(absent, "workdir")
    assert [path.name for path in Store.root.iterdir()] == ["bucket"]


def test_puts_that_fail_are_tried_again(bucket):
    for i in range(50):
        storage.append(bucket / "run/log.jsonl", f"{i}\n")
        storage.write_json(bucket / f"run/{i}.json", i)
    assert storage.read(bucket / "run/log.jsonl") == "".join(f"{i}\n" for i in range(50)).encode()
    assert [storage.read_json(bucket / f"run/{i}.json") for i in range(50)] == list(range(50))
    assert len(objects(bucket)) == 51 and 50 < Store.failed == Store.puts - 100
    storage.claim_folder(bucket / "run", "workdir")
    storage.remove(bucket / "run/0.json")
    storage.remove(bucket / "run/0.json")
    assert len(objects(bucket)) == 50 and not storage.exists(bucket / "run/0.json")


def test_an_object_is_the_old_one_or_the_new_one(bucket):
    """The block fails; the bucket fails for long; and the process dies in the middle of a PUT."""
    path = bucket / "a.json"
    storage.write_json(path, "old")
    with pytest.raises(KeyError), storage.atomic(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert storage.read_json(path) == "old"
    Store.failures, Store.chance = 2.0, np.random.default_rng(0)  # nothing is stored
    with pytest.raises(OSError, match=r"^gs://bucket/a.json cannot be written: OSError: 503"):
        storage.write_json(path, "new")
    assert storage.read_json(path) == "old"
    Store.kill_at = Store.puts + 1
    with pytest.raises(object_store.Killed):
        storage.write_json(path, "new")
    assert storage.read_json(path) == "old" and list(objects(bucket)) == ["a.json"]


def test_an_object_that_arrives_in_part_is_put_again(bucket, monkeypatch):
    Store.failures, put = 0.0, Store.put

    def cut(self, path, content):
        put(self, path, content if Store.puts else content[:3])

    monkeypatch.setattr(Store, "put", cut)
    storage.write_json(bucket / "a.json", {"whole": True})
    assert storage.read_json(bucket / "a.json") == {"whole": True} and Store.puts == 2


def test_what_other_libraries_write_is_put_at_the_end(bucket, tmp_path):
    with storage.folder_here(bucket / "profile") as folder:
        (folder / "plugins").mkdir()
        (folder / "plugins/a").write_bytes(b"1")
        (folder / "b").write_bytes(b"2")
        assert not objects(bucket)
    assert objects(bucket) == {"profile/b": b"2", "profile/plugins/a": b"1"}
    with storage.copy_here(bucket / "profile/b") as copy:
        assert copy.name == "b" and copy.read_bytes() == b"2"
    assert not copy.exists()
    with storage.folder_here(tmp_path) as folder:
        assert folder == tmp_path


def test_libraries_answer_from_the_bucket_and_not_from_memory(bucket):
    """Another host writes what this one has not found before."""
    Store.delay = 0.0
    assert not list(bucket.glob("run/*.json"))
    (Store.root / "bucket" / "run%2Fa.json").write_text(json.dumps(1))
    assert storage.read_json(bucket / "run/a.json") == 1
    assert [path.name for path in bucket.glob("run/*.json")] == ["a.json"]
