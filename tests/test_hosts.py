"""Several hosts: processes of this machine, which join, agree, die, come late, or never come."""

import re
import signal
import time

import hosts
import numpy as np
import object_store
import pytest

import vitcnn
from vitcnn import checkpoints, results

# Everything that is random in a step is on.
RANDOM = {
    "augment": ("flip", "pad_crop(2)"),
    "mixing": {"mixup": 0.2},
    "average": 0.9,
    "steps": 24,
    "checkpoint_every": 4,
    "shard_parameters": True,
}


def arrays(workdir):
    """Returns every array of the weights that a training left, as bytes."""
    with np.load(workdir / "weights.npz") as archive:
        return {name: archive[name].tobytes() for name in archive.files}


def values(workdir):
    """Returns every number of every Result of a workdir, as bytes."""
    return {
        (name, variable): dataset[variable].values.tobytes()
        for name, dataset in results.load_all(workdir).items()
        for variable in dataset.data_vars
    }


def test_hosts_agree_and_name_what_differs():
    for output in hosts.finish(hosts.start(2, devices=1, task="meet")):
        assert "config.group: 20 on host 0, 21 on host 1" in output and "seed" not in output
        (changed,) = re.findall(r"  (vitcnn/.*): '\w{16}' on host 0, '\w{16}' on host 1", output)
        assert changed == "vitcnn/edits.py"
        assert "is at 'there' and host 0 at 'here'" in output or (
            "host 0 is at 'here' and host 1 at 'there'" in output
        )


@pytest.fixture(scope="module")
def one_host(tmp_path_factory):
    """The workdirs of a training and of a measurement on one host of eight devices."""
    workdirs = {task: tmp_path_factory.mktemp(task) for task in ("train", "analyze")}
    for task, workdir in workdirs.items():
        changes = RANDOM if task == "train" else {}
        alone = hosts.start(1, devices=8, task=task, workdir=str(workdir), changes=changes)
        hosts.finish(alone)
    return workdirs


@pytest.mark.slow
@pytest.mark.parametrize("task", ["train", "analyze"])
def test_a_host_is_killed_and_the_run_goes_on_to_the_same_bits(one_host, tmp_path, task):
    """Four hosts; the others end, with an error, soon after one is killed."""
    options = {"task": task, "workdir": str(tmp_path), "timeout": 15}
    options["changes"] = RANDOM if task == "train" else {}
    # The measurement takes a moment, so the others have to be there for longer.
    running = hosts.start(4, **options, slow=(0, "sums", 5))
    while all(host.poll() is None for host in running):
        there = (tmp_path / "checkpoints/8").is_dir() or (tmp_path / "sums.2of4.npz").is_file()
        if there:
            running[2].send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    started = time.monotonic()
    ended = hosts.ends(running, timeout=120)
    assert time.monotonic() - started < 100
    assert all(code for code, _ in ended), ended
    hosts.finish(hosts.start(4, **options))
    compare = arrays if task == "train" else values
    assert compare(tmp_path) == compare(one_host[task])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "place"), [("analyze", "sums"), ("train", "batch")])
def test_a_slow_host_is_waited_for(one_host, tmp_path, task, place):
    """Forty seconds: longer than the time-out of the collectives of the CPU."""
    options = {"task": task, "workdir": str(tmp_path), "slow": (1, place, 40)}
    options["changes"] = RANDOM if task == "train" else {}
    hosts.finish(hosts.start(4, **options))
    compare = arrays if task == "train" else values
    assert compare(tmp_path) == compare(one_host[task])


@pytest.mark.slow
def test_a_signal_that_reaches_one_host_stops_all(one_host, tmp_path):
    changes = {**RANDOM, "steps": 24}
    options = {"task": "train", "workdir": str(tmp_path), "changes": changes}
    running = hosts.start(2, devices=4, **options)
    while not (tmp_path / "checkpoints/4").is_dir() and running[0].poll() is None:
        time.sleep(0.002)
    running[1].send_signal(signal.SIGTERM)
    ended = hosts.ends(running)
    assert [code for code, _ in ended] == [75, 75], ended
    assert "SIGTERM: stopped after step" in ended[1][1]
    assert "a signal: stopped after step" in ended[0][1]
    hosts.finish(hosts.start(2, devices=4, **options))
    assert arrays(tmp_path) == arrays(one_host["train"])


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_hosts(one_host, tmp_path):
    """The number of devices stays the same."""
    options = {"task": "train", "workdir": str(tmp_path), "changes": RANDOM}
    running = hosts.start(4, devices=2, **options)
    while not (tmp_path / "checkpoints/4").is_dir() and running[0].poll() is None:
        time.sleep(0.002)
    running[3].send_signal(signal.SIGTERM)
    assert [code for code, _ in hosts.ends(running)] == [75] * 4
    hosts.finish(hosts.start(2, devices=4, **options))
    assert arrays(tmp_path) == arrays(one_host["train"])


@pytest.mark.slow
def test_hosts_without_a_common_disk(one_host, tmp_path):
    """A measurement needs none; a training says that it does, and takes a bucket."""
    private = str(tmp_path / "{process}")
    hosts.finish(hosts.start(2, devices=4, task="analyze", workdir=private))
    assert values(tmp_path / "0") == values(one_host["analyze"])
    assert not list((tmp_path / "1").glob("*.nc"))
    apart = str(tmp_path / "train{process}")
    for code, output in hosts.ends(hosts.start(2, task="train", workdir=apart)):
        assert code and "host 1 does not see the files of host 0" in output
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    options = {"task": "train", "workdir": "gs://bucket/run", "changes": RANDOM}
    options["store"] = str(tmp_path / "buckets")
    hosts.finish(hosts.start(2, devices=4, **options))
    weights = tmp_path / "weights.npz"
    weights.write_bytes(object_store.contents(tmp_path / "buckets")["run/weights.npz"])
    assert arrays(tmp_path) == arrays(one_host["train"])


@pytest.mark.slow
def test_a_host_that_never_comes_is_named():
    ((code, output),) = hosts.ends(hosts.start(2, only=[0], task="meet", timeout=5), timeout=60)
    assert code and "host 1" in output


@pytest.mark.slow
def test_hosts_with_other_configs_images_or_weights_are_refused(tmp_path):
    """Each host has images and weights of its own, under the same names."""
    workdir = tmp_path / "run"
    other = {1: {"data": {"source": "scenes", "size": 36, "classes": 4, "seed": 1}}}
    options = {"task": "analyze", "workdir": str(workdir), "devices": 1}
    for code, output in hosts.ends(hosts.start(2, **options, changes_of=other)):
        assert code and "config.data.seed: '(not set)' on host 0, 1 on host 1" in output
    changes, small = {}, {"depth": 1, "width": 24}
    for host in range(2):
        (tmp_path / f"{host}").mkdir()
        images = np.full((36, 32, 32, 3), host, np.uint8)
        np.savez(tmp_path / f"{host}/images.npz", image=images, label=np.arange(36) % 4)
        model = vitcnn.load("vit", "mini/4", seed=host, **small)
        checkpoints.export(tmp_path / f"{host}/weights.npz", model.variables)
        weights = {"family": "vit", "variant": "mini/4", **small}
        weights["weights"] = str(tmp_path / f"{host}/weights.npz")
        data = {"source": "npz", "path": str(tmp_path / f"{host}/images.npz")}
        changes[host] = {"models": {"v": weights}, "data": data}
    for code, output in hosts.ends(hosts.start(2, **options, changes_of=changes)):
        assert code and "config.data.path" not in output
        for entry in ("data.crc32.image", "images_sha256.cka", "models.v.variables_sha256"):
            assert re.search(rf"{entry}: '\w+' on host 0, '\w+' on host 1", output), output
    assert not list(workdir.glob("*.n*"))


@pytest.mark.slow
def test_a_number_of_devices_that_does_not_divide_the_batch_is_named(tmp_path):
    options = {"task": "train", "workdir": str(tmp_path), "devices": 3}
    for code, output in hosts.ends(hosts.start(2, **options)):
        assert code and "config.batch = 16 is not a multiple of 6: 6 devices" in output


@pytest.mark.slow
def test_hosts_that_would_save_at_other_steps_are_refused(tmp_path):
    """No number depends on it, but the hosts would wait for each other at another place."""
    other = {1: {"checkpoint_every": 3, "on_device": "never", "threads": 1}}
    options = {"task": "train", "workdir": str(tmp_path), "devices": 1, "changes_of": other}
    for code, output in hosts.ends(hosts.start(2, **options)):
        assert code and "config.checkpoint_every: 500 on host 0, 3 on host 1" in output
        assert "config.on_device: 'auto' on host 0, 'never' on host 1" in output
        assert "threads" not in output


@pytest.mark.slow
def test_a_host_that_fails_is_named_by_the_others_at_once(tmp_path):
    """It has a misspelt field; the others wait for it to compare configs."""
    options = {"task": "analyze", "workdir": str(tmp_path), "changes_of": {1: {"grup": 5}}}
    started = time.monotonic()
    first, second = hosts.ends(hosts.start(2, devices=1, **options, timeout=300))
    assert first[0] and "host 1 has failed: ValueError: unknown field" in first[1], first
    assert second[0] and "did you mean 'group'" in second[1]
    assert time.monotonic() - started < 120


@pytest.mark.slow
def test_an_ablation_on_two_hosts_is_that_of_one(tmp_path):
    for processes, devices in ((1, 4), (2, 2)):
        workdir = str(tmp_path / f"{processes}")
        hosts.finish(hosts.start(processes, devices=devices, task="ablate", workdir=workdir))
    alone, together = values(tmp_path / "1"), values(tmp_path / "2")
    assert alone == together and len(alone) > 10
