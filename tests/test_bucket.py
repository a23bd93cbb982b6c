"""Whole runs in a bucket whose PUTs fail and whose listings lag: the same bits as on a disk."""

import json
import signal
import time

import hosts
import numpy as np
import object_store
import pytest
import running
import xarray
from hosts import measurement
from marks import slow
from object_store import Store
from tiny_training import tiny, validation

import vitcnn
from vitcnn import config as configs
from vitcnn import report, results, storage, training
from vitcnn.checkpoints.files import safetensors
from vitcnn.results import datasets

TIMES = ("seconds", "images_per_second", "waiting", "tflops_per_second", "utilisation")


@pytest.fixture(scope="module")
def buckets(tmp_path_factory):
    """The folder of the buckets."""
    root = tmp_path_factory.mktemp("buckets")
    (root / "bucket").mkdir()
    object_store.install(root)
    yield root
    object_store.uninstall()


def unstable(buckets, kill_at=0):
    object_store.install(buckets, failures=0.2, delay=3.0, kill_at=kill_at)


def training_config(**changes):
    return tiny(
        evaluations=validation(24, every=3),
        average=0.9,
        snapshots=3,
        checkpoint_every=2,
        keep_every=3,
        **changes,
    )


def numbers(lines):
    """Returns the lines of a log without what depends on time."""
    rows = [json.loads(line) for line in lines.splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def same_results(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].identical(b[name]), name


def killed(buckets, run, kills):
    """Returns what a run returns, after it was killed in the PUTs of these numbers, one an attempt.

    Args:
      buckets: folder of the buckets.
      run: the run.
      kills: numbers of PUTs.
    """
    failed = 0
    for kill_at in kills:
        unstable(buckets, kill_at)
        with pytest.raises(object_store.Killed):
            run()
        failed += Store.failed
    unstable(buckets)
    returned = run()
    assert failed + Store.failed > 0
    return returned


EARLY_AND_LATE = slow((2, 6, 10))


@pytest.mark.parametrize("kills", [(9,), EARLY_AND_LATE])
def test_a_measurement_that_is_killed_in_a_put_resumes_to_the_same_bits(buckets, tmp_path, kills):
    config, address = measurement(), f"gs://bucket/measured{len(kills)}"
    local = vitcnn.analyze(config, tmp_path, progress=False)
    there = killed(buckets, lambda: vitcnn.analyze(config, address, progress=False), kills)
    same_results(there, local)
    same_results(vitcnn.analyze(config, address, progress=False), local)
    same_results(results.load_all(address), local)
    folder = address.removeprefix("gs://bucket/")
    names = {name for name in object_store.contents(buckets) if name.startswith(f"{folder}/")}
    assert names == {f"{folder}/cka.nc", f"{folder}/run.json"}
    changed = measurement(group=6)
    with pytest.raises(ValueError, match=rf"{address} holds another run(.|\n)*4 there, 6 here"):
        vitcnn.analyze(changed, address, progress=False)


def test_a_report_is_written_into_a_bucket(buckets, tmp_path):
    unstable(buckets)
    vitcnn.analyze(measurement(), "gs://bucket/measured1", progress=False)
    page = report.write("gs://bucket/measured1", "gs://bucket/measured/report")
    assert str(page) == "gs://bucket/measured/report/index.html"
    here = report.write(results.load_all("gs://bucket/measured1"), tmp_path)
    there = object_store.contents(buckets)
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        name = f"measured/report/{file.relative_to(tmp_path).as_posix()}"
        assert there[name] == file.read_bytes(), name
    assert here == tmp_path / "index.html"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a training on this disk."""
    workdir = tmp_path_factory.mktemp("trained")
    training.train(training_config(), workdir, progress=False)
    return workdir


@pytest.mark.parametrize("kills", [(21,), slow((7, 17, 8))])
def test_a_training_that_is_killed_in_a_put_resumes_to_the_same_bits(buckets, trained, kills):
    """It is killed before, while, and after it saves a state."""
    address = f"gs://bucket/trained{len(kills)}"
    killed(buckets, lambda: training.train(training_config(), address, progress=False), kills)
    folder = address.removeprefix("gs://bucket/")
    there = {
        name.replace(folder, "trained", 1): content
        for name, content in object_store.contents(buckets).items()
        if name.startswith(f"{folder}/")
    }
    for name in ("weights.npz", "snapshots/3.npz", "weights.vitcnn.json"):
        assert there[f"trained/{name}"] == (trained / name).read_bytes(), name
    for name in ("train.jsonl", "evaluations.jsonl"):
        assert numbers(there[f"trained/{name}"]) == numbers((trained / name).read_bytes()), name
    name = "evaluations/val/6/accuracy.model.nc"
    same = results.load(f"{address}/{name}"), results.load(trained / name)
    assert same[0].equals(same[1])
    states = {n for n in there if n.startswith("trained/checkpoints/") and n.endswith(".state")}
    assert {f"trained/checkpoints/{step}.state" for step in (4, 6)} <= states
    assert json.loads(there["trained/checkpoints/state.json"])["steps"] == [4, 6]
    before = json.loads((trained / "run.json").read_text())
    record = json.loads(there["trained/run.json"])
    assert record["finished"] == 6 and record["accuracy"] == before["accuracy"]


def requests(method):
    """Returns name -> number of requests since the last call of `install`."""
    return {key: n for (each, key), n in Store.requests.items() if each == method and n}


def test_a_training_asks_a_bucket_for_no_more_than_it_needs(buckets):
    """Three evaluations, three states: nothing is listed, and nothing is read at each step."""
    object_store.install(buckets)
    training.train(training_config(), "gs://bucket/few", progress=False)
    assert requests("LIST") == {}
    (probe,) = (name for name in requests("PUT") if ".writable" in name)
    assert requests("PUT")[probe] == 1
    read = requests("GET")
    # Cut, and known; then one to append each line, and one for run.json at the end.
    assert read["few/evaluations.jsonl"] == 2 + 3 + 1
    assert read["few/run.json"] == 5 and max(read.values()) == 6, read
    object_store.install(buckets)
    evaluations = results.load_steps("gs://bucket/few/evaluations/val")
    assert evaluations["accuracy.model"].step.values.tolist() == [0, 3, 6]
    assert sum(requests("LIST").values()) == 1
    assert set(requests("GET").values()) == {1} and len(requests("GET")) == 3


def test_weights_and_states_in_a_bucket_are_where_other_runs_start(buckets, trained, tmp_path):
    unstable(buckets)
    run, local = "gs://bucket/trained1", trained
    training.train(training_config(), run, progress=False)
    for part in ("", "/checkpoints", "/checkpoints/4", "/snapshots/3.npz", "/weights.npz"):
        pair = [vitcnn.load("vit", "mini/4", f"{place}{part}", **FIELDS) for place in (run, local)]
        assert pair[0].digest() == pair[1].digest(), part
        assert pair[0].provenance["weights"]["source"].startswith("gs://bucket/trained1/")
    raw = [vitcnn.load("vit", "mini/4", f"{p}/checkpoints", average=False) for p in (run, local)]
    assert raw[0].digest() == raw[1].digest() != pair[0].digest()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file 'gs://bucket/none.npz'"):
        vitcnn.load("vit", "mini/4", "gs://bucket/none.npz")
    with pytest.raises(ValueError, match=r"gs://bucket/trained1/weights.npz holds vit mini/4, not"):
        vitcnn.load("vit", "Ti/16", run)


def test_weights_in_a_bucket_say_which_network_they_are_of(buckets):
    """A folder of timm, whole and in shards."""
    small = {"width": 12, "depth": 1, "mlp_dim": 8, "heads": 3, "num_classes": 5, "patch": 8}
    model = vitcnn.load("vit", "mini/4", **small)
    folder = storage.as_path("gs://bucket/exported", "a folder")
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    vitcnn.checkpoints.export_timm(folder, "vit", model.module, model.variables, half)
    loaded = vitcnn.load("gs://bucket/exported")
    assert loaded.module == model.module
    assert loaded.digest() == model.digest()
    arrays = vitcnn.checkpoints.read(folder / "model.safetensors")
    names = {key: f"model-{i % 2}.safetensors" for i, key in enumerate(sorted(arrays))}
    for name in set(names.values()):
        with storage.atomic(folder / name) as partial:
            safetensors.write(
                partial, {k: arrays[k] for k, shard in names.items() if shard == name}
            )
    storage.write_json(folder / "model.safetensors.index.json", {"weight_map": names})
    storage.remove(folder / "model.safetensors")
    assert vitcnn.load("gs://bucket/exported").digest() == model.digest()


@pytest.mark.slow
def test_a_run_goes_on_from_the_state_of_a_run_in_a_bucket(buckets, trained, tmp_path):
    unstable(buckets)
    run, local = "gs://bucket/trained1", trained
    training.train(training_config(), run, progress=False)
    fields = {"schedule": configs.schedule("constant"), "average": 0.9, "steps": 7}
    longer = [
        training.train(tiny(**fields, resume_from=f"{place}"), tmp_path / name, progress=False)
        for name, place in (("a", run), ("b", local / "checkpoints/6"))
    ]
    assert longer[0].digest() == longer[1].digest()
    with pytest.raises(FileNotFoundError, match=r"checkpoints holds no such checkpoint"):
        training.train(tiny(**fields, resume_from=f"{run}/checkpoints/5"), tmp_path / "c")


FIELDS = {"num_classes": 8, "depth": 1, "width": 48, "mlp_dim": 64}


@pytest.mark.slow
def test_a_run_that_was_copied_out_of_a_bucket_goes_on(buckets, tmp_path):
    """On a disk its states stay files; a run with the folders of a disk is refused in a bucket."""
    object_store.install(buckets)
    config = tiny(checkpoint_every=2)
    there = training.train(config, "gs://bucket/copied", progress=False)
    for name, content in object_store.contents(buckets).items():
        if name.startswith("copied/") and "weights" not in name:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    record = json.loads((tmp_path / "copied/run.json").read_text())
    del record["finished"]
    (tmp_path / "copied/run.json").write_text(json.dumps(record))
    state = json.loads((tmp_path / "copied/checkpoints/state.json").read_text())
    state["steps"] = [4]
    (tmp_path / "copied/checkpoints/state.json").write_text(json.dumps(state))
    here = training.train(config, tmp_path / "copied", progress=False)
    assert here.digest() == there.digest()
    assert (tmp_path / "copied/checkpoints/6.state").is_file()
    del state["steps"]
    storage.write_json("gs://bucket/disk/checkpoints/state.json", state)
    storage.write_json("gs://bucket/disk/run.json", {**record, "config": record["config"]})
    with pytest.raises(ValueError, match=r"holds the states of a run on a disk.*copy the workdir"):
        training.train(config, "gs://bucket/disk", progress=False)


def test_images_in_a_bucket_are_the_images_of_a_disk(buckets, tmp_path):
    from PIL import Image

    from vitcnn import data
    from vitcnn.data import content

    unstable(buckets)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", image=images, label=np.arange(6))
    for i, image in enumerate(images):
        file = tmp_path / f"folder/{'ab'[i % 2]}/{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    (tmp_path / "folder/.hidden").mkdir()
    (tmp_path / "folder/.hidden/x.png").write_bytes(b"no image")
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        address = storage.as_path("gs://bucket/data", "data") / str(file.relative_to(tmp_path))
        storage.put(address, file.read_bytes())
    Store.delay = 0.0
    for name, path in (("npz", "images.npz"), ("folder", "folder")):
        there, here = (data.load(name, path=f"{p}/{path}") for p in ("gs://bucket/data", tmp_path))
        assert there.provenance == here.provenance and len(there) == 6
        assert content.digests(there, range(6)) == content.digests(here, range(6))
        for i in range(6):
            np.testing.assert_array_equal(there[i]["image"], here[i]["image"])
            assert there[i]["label"] == here[i]["label"]
    with pytest.raises(FileNotFoundError, match=r"no npz file 'gs://bucket/data/imges.npz'; did"):
        data.load("npz", path="gs://bucket/data/imges.npz")
    with pytest.raises(FileNotFoundError, match=r"no folder 'gs://bucket/data/foldr'"):
        data.load("folder", path="gs://bucket/data/foldr")


@pytest.mark.slow
def test_an_ablation_in_a_bucket_is_that_of_a_disk(buckets, tmp_path):
    unstable(buckets)
    config = running.load(running.ROOT / "configs/ablations/skips.py").get_config("vit,smallest")
    config.seeds = 2
    local = vitcnn.ablate(config, tmp_path, progress=False)
    there = vitcnn.ablate(config, "gs://bucket/ablation", progress=False)
    assert local.keys() == there.keys()
    for name in local:
        xarray.testing.assert_equal(there[name], local[name])
    Store.delay = 0.0
    assert report.read("gs://bucket/ablation").keys() == local.keys()
    again = vitcnn.ablate(config, "gs://bucket/ablation", progress=False)
    xarray.testing.assert_equal(again["accuracy"], local["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["analyze", "train"])
def test_a_process_that_is_killed_leaves_a_bucket_from_which_it_resumes(tmp_path, task):
    """SIGKILL as soon as the bucket has more objects or more states than before, three times."""
    (tmp_path / "bucket").mkdir()
    changes = {"steps": 40, "checkpoint_every": 2, "average": 0.9} if task == "train" else {}
    options = {"task": task, "changes": changes, "devices": 1}
    remote = {**options, "workdir": "gs://bucket/run", "store": str(tmp_path)}
    hosts.finish(hosts.start(1, **options, workdir=str(tmp_path / "local")))
    for _ in range(3):
        before = object_store.contents(tmp_path)
        (victim,) = hosts.start(1, **remote)
        while victim.poll() is None:
            now = object_store.contents(tmp_path)
            if any("sums" in n or "state" in n for n in now if now[n] != before.get(n)):
                break
            time.sleep(0.002)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        assert victim.returncode == -signal.SIGKILL
    hosts.finish(hosts.start(1, **remote))
    there = object_store.contents(tmp_path)
    if task == "train":
        assert there["run/weights.npz"] == (tmp_path / "local/weights.npz").read_bytes()
        logs = there["run/train.jsonl"], (tmp_path / "local/train.jsonl").read_bytes()
        assert numbers(logs[0]) == numbers(logs[1])
    else:
        same = datasets.from_bytes(there["run/cka.nc"]), results.load(tmp_path / "local/cka.nc")
        assert same[0].equals(same[1]) and len(same[0].data_vars) > 2
        origins = [results.provenance(each) for each in same]
        for origin in origins:
            del origin["versions"]["revision"]  # somebody may commit while this test runs
        assert origins[0] == origins[1]
