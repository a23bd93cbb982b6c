"""Devices, hosts and a run that is killed: none of them changes a bit of a result."""

import signal
import subprocess
import time

import pytest
import running

from vitcnn import results

SMALLEST = "scenes.py:smallest"
# Nine groups of one size, so that one program is compiled, and a last round that is not full.
FLAGS = ("--config.data.size=72", "--config.models.resnet.units=(1,1,1)")


def values(workdir):
    """Returns every number of every result of a workdir, as bytes."""
    found = {}
    for name, dataset in results.load_all(workdir).items():
        for variable in dataset.variables:
            array = dataset[variable].values
            found[f"{name}:{variable}"] = array.astype(str) if array.dtype == object else array
    return found


def assert_same_bits(a, b):
    assert a.keys() == b.keys() and len(a) > 20
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    running.analyze(SMALLEST, workdir, *FLAGS)
    return values(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_any_number_of_devices_gives_the_same_bits(one_device, tmp_path, devices):
    running.analyze(SMALLEST, tmp_path, *FLAGS, devices=devices)
    assert_same_bits(one_device, values(tmp_path))


@pytest.mark.slow
def test_two_hosts_of_two_devices_give_the_same_bits(one_device, tmp_path):
    command = [*running.command(SMALLEST, tmp_path), *FLAGS]
    command.append(f"--coordinator=localhost:{_free_port()}")
    hosts = [
        subprocess.Popen(
            [*command, "--processes=2", f"--process={i}"],
            cwd=running.ROOT,
            env=running.environment(devices=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    assert_same_bits(one_device, values(tmp_path))


def test_killed_at_any_moment_it_resumes_to_the_same_bits(one_device, tmp_path):
    """SIGKILL as soon as the first sums are on disk, then again later, then to the end."""
    command = [*running.command(SMALLEST, tmp_path), *FLAGS, "--config.save_every_s=0.0"]
    state = tmp_path / "sums.0of1.npz"
    resumed_at = []
    for groups in (1, 4):
        victim = subprocess.Popen(
            command,
            cwd=running.ROOT,
            env=running.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while victim.poll() is None and running.groups_saved(state) < groups:
            time.sleep(0.002)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        resumed_at.append(running.groups_saved(state))
    assert 0 < resumed_at[0] <= resumed_at[1] and not list(tmp_path.glob("*.nc"))
    running.analyze(SMALLEST, tmp_path, *FLAGS)
    assert_same_bits(one_device, values(tmp_path))
    assert not state.exists()


def _free_port():
    import socket

    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
