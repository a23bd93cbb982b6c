"""scripts/tpu_vm.sh with a stand-in for gcloud, whose hosts are folders of this machine."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import running

SCRIPT = running.ROOT / "scripts/tpu_vm.sh"
STAND_IN = running.ROOT / "tests/fake_gcloud.py"

# Makes an environment whose Python is that of the tests, with a jax that sees $FAKE_GCLOUD/devices.
UV = f"""#!/usr/bin/env bash
echo "$@" >> "$FAKE_GCLOUD/uv"
[ "$1" = venv ] || exit 0
mkdir -p .venv/bin modules/jax
echo "
import os, pathlib
backend, count, kind = pathlib.Path(os.environ['FAKE_GCLOUD'], 'devices').read_text().split(',')
default_backend, device_count = lambda: backend, lambda: int(count)
class distributed: initialize = staticmethod(lambda: None)
class devices(list):
    def __getitem__(self, i): return type('Device', (), {{'device_kind': kind}})
" > modules/jax/__init__.py
printf '#!/bin/sh\\nPYTHONPATH=%s exec {sys.executable} "$@"' "$PWD/modules" > .venv/bin/python
chmod +x .venv/bin/python
"""


class Cloud:
    """The stand-in, and the script that calls it."""

    def __init__(self, folder):
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name, text in {
            "gcloud": f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} "$@"',
            "hostname": "#!/bin/sh\necho host$HOST",
            "uv": UV,
        }.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.write(devices="tpu,8,TPU v5 lite")

    def write(self, **files):
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def fail(self, *words, code=1, message="", **files):
        """Plans that the next call with these words fails, and what it writes into files."""
        with (self.folder / "fail").open("a") as file:
            file.write(json.dumps([words, code, message, files]) + "\n")

    def __call__(self, *arguments, code=0):
        """Runs the script; returns its output, and the calls of gcloud as text."""
        (self.folder / "calls").unlink(missing_ok=True)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "FAKE_GCLOUD": str(self.folder), "PATH": path}
        verb, *rest = arguments
        process = subprocess.run(
            [SCRIPT, verb, "--pause=0.1", *rest],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert process.returncode == code, process.stdout
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return process.stdout, [" ".join(json.loads(line)[2:]) for line in lines]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


@pytest.fixture
def vm(cloud):
    """A VM with two hosts, which have their environments."""
    cloud.write(vm="READY", hosts="2", devices="tpu,16,TPU v5 lite")
    environment = {**os.environ, "FAKE_GCLOUD": str(cloud.folder)}
    for host in ("host0", "host1"):
        folder = cloud.folder / host / "vitcnn"
        folder.mkdir(parents=True)
        subprocess.run([cloud.folder / "bin/uv", "venv"], cwd=folder, env=environment, check=True)
    (cloud.folder / "uv").unlink()
    return cloud


TYPES = {
    "v4-8": ("v4-8", "tpu-ubuntu2204-base", "us-central2-b"),
    "v5e-8": ("v5litepod-8", "v2-alpha-tpuv5-lite", "us-west4-a"),
    "v5litepod-16": ("v5litepod-16", "v2-alpha-tpuv5-lite", "us-west4-a"),
    "v5p-8": ("v5p-8", "v2-alpha-tpuv5", "us-east5-a"),
    "v6e-4": ("v6e-4", "v2-alpha-tpuv6e", "us-east5-b"),
}


@pytest.mark.parametrize("name", TYPES)
def test_create_takes_type_runtime_and_zone_from_one_table(cloud, name):
    accelerator, runtime, zone = TYPES[name]
    _, calls = cloud("create", f"--type={name}", "--name=a", "--project=p", "--spot")
    assert calls[2] == (
        f"tpu-vm create a --accelerator-type={accelerator} --spot --version={runtime} "
        f"--zone={zone} --project=p"
    )


def test_create_twice_makes_one_vm(cloud):
    output, _ = cloud("create")
    # 8 chips at the list price of 1.20 an hour
    assert "costs about 9.60 US$ an hour" in output and "tpu_vm.sh delete" in output
    output, calls = cloud("create")
    assert "vitcnn exists" in output
    assert not any("create" in call for call in calls)


def test_a_queued_vm_is_awaited_and_deleted_with_its_request(cloud):
    _, calls = cloud("create", "--queued", "--zone=z")
    assert (
        "queued-resources create vitcnn --accelerator-type=v5litepod-8 "
        "--runtime-version=v2-alpha-tpuv5-lite --node-id=vitcnn --zone=z"
    ) in calls
    output, calls = cloud("delete", "--zone=z")
    assert "queued-resources delete vitcnn --force --quiet --zone=z" in calls
    assert calls[-3:-1] == ["tpu-vm list --zone=z", "queued-resources list --zone=z"]
    assert "an hour" not in output and "buckets are billed" in output


def test_a_request_that_fails_is_named(cloud):
    cloud.write(queued="SUSPENDED")
    cloud.fail("queued-resources", "create", code=1, message="quota exceeded")
    output, calls = cloud("create", "--queued", code=1)
    assert "queued-resources delete vitcnn --force --quiet --zone=us-west4-a" in calls
    assert "no quota for v5litepod-8 in us-west4-a" in output


def test_without_capacity_it_tries_again_and_then_says_what_to_do(cloud):
    message = "There is no more capacity in the zone"
    cloud.fail("create", message=message)
    cloud.fail("create", message=message)
    output, calls = cloud("create")
    assert sum("tpu-vm create" in call for call in calls) == 3
    cloud("delete")
    for _ in range(3):
        cloud.fail("create", message=message)
    output, calls = cloud("create", "--tries=3", code=1)
    assert sum("tpu-vm create" in call for call in calls) == 3
    assert message in output and "wait for it with --queued" in output


def test_without_quota_it_does_not_try_again(cloud):
    cloud.fail("create", message="RESOURCE_EXHAUSTED: Quota limit has been exceeded")
    output, calls = cloud("create", code=1)
    assert sum("create" in call for call in calls) == 1 and "Quotas" in output


def test_setup_installs_and_checks_on_every_host_and_again_changes_little(vm):
    uv = vm.folder / "uv"
    for host in ("host0", "host1"):
        shutil.rmtree(vm.folder / host)
    vm("setup", "--type=v5e-16")
    expected = ["venv --python 3.12 .venv"]
    expected += ["pip install --quiet --python .venv/bin/python -e .[tpu,hub,gcs]"]
    assert uv.read_text().splitlines() == expected * 2
    for host in ("host0", "host1"):
        assert (vm.folder / host / "vitcnn/scripts/analyze.py").exists()
    uv.unlink()
    vm.fail("ssh", code=255)
    vm.fail("ssh", code=1, message="ERROR: [/usr/bin/ssh] exited with return code [255].")
    output, _ = vm("setup", "--type=v5e-16", "--extras=tpu")
    assert uv.read_text().splitlines() == [expected[1].replace(",hub,gcs", "")] * 2
    assert output.count("no connection to vitcnn") == 2
    assert output.count("16 chips: TPU v5 lite") == 2


def test_setup_refuses_a_machine_without_its_chips(vm):
    output, _ = vm("setup", "--type=v5e-32", code=1)
    assert "expected 32 chips of v5litepod-32, not 16" in output
    vm.write(devices="cpu,1,cpu")
    output, _ = vm("setup", "--type=v5e-16", code=1)
    assert "expected backend tpu, not cpu" in output and "JAX does not see the TPU" in output


def test_run_starts_all_hosts_and_follows(vm):
    text = "import os; print('host', os.environ['HOST'], \"it's\", '$HOME  *')"
    output, _ = vm("run", "--type=v5e-16", "-c", text)
    assert "host 0 it's $HOME  *" in output and "still" not in output
    assert "costs about 19.20 US$" in output
    assert (vm.folder / "host1/vitcnn-job/log").read_text() == "host 1 it's $HOME  *\n"
    output, _ = vm("status", "--type=v5e-16")
    assert "vitcnn: READY" in output
    assert "host0 ended 0: .venv/bin/python -c" in output and "host1 ended 0:" in output


@pytest.mark.parametrize("program", [("scripts/train.py",), ("-m", "vitcnn", "train")])
def test_the_hosts_of_a_slice_get_a_coordinator(cloud, program):
    command = (*program, "--config=a.py:x,y", "--workdir=gs://b/c")
    for kind, coordinator in (("v5e-16", " --coordinator=auto "), ("v5e-8", " ")):
        output, calls = cloud("run", "--dry_run", f"--type={kind}", *command)
        start = next(line for line in output.splitlines() if "setsid" in line)
        start = subprocess.check_output(["bash", "-c", f"printf %s {start}"], text=True)
        expected = f".venv/bin/python {' '.join(command)}{coordinator}"
        (written,) = (line for line in start.splitlines() if line.startswith("echo .venv"))
        assert shlex.split(written)[1].replace("\\", "") == expected
        assert not calls and output.count("gcloud compute tpus tpu-vm") == 4


def wait_for(vm, name):
    return f"import os, time\nwhile not os.path.exists('{vm.folder / name}'): time.sleep(0.05)\n"


def test_a_lost_connection_costs_nothing(vm):
    code = f"print('begun', flush=True)\n{wait_for(vm, 'go')}print('over')"
    vm.fail("tail", code=255, message="connection reset")
    vm.write(go="")
    output, _ = vm("run", "--type=v5e-16", "-c", code)
    assert "the program goes on, and this tries again (attempt 1 of 10)" in output
    assert output.count("begun") == output.count("over") == 1
    output, _ = vm("logs", "--type=v5e-16")
    assert "begun\nover" in output


def test_a_program_that_runs_is_followed_not_started(vm):
    code = f"print('begun', flush=True)\n{wait_for(vm, 'go')}"
    vm.fail("tail", code=255)
    output, _ = vm("run", "--type=v5e-16", "--tries=1", "-c", code, code=1)
    assert "the program goes on: ./scripts/tpu_vm.sh logs" in output
    output, _ = vm("run", "--type=v5e-16", "-c", "print(1)", code=1)
    assert "another program is running" in output
    vm.fail("tail", code=255, go="")
    output, calls = vm("run", "--type=v5e-16", "-c", code)
    assert "this program is running: its output follows" in output and "begun" in output
    assert not any("setsid" in call for call in calls)


def test_stop_lets_the_program_save(vm):
    code = (
        "import signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(75)))\n"
        f"open('{vm.folder}/ready' + __import__('os').environ['HOST'], 'w')\n"
        f"{wait_for(vm, 'never')}"
    )
    vm.fail("tail", code=255)
    vm("run", "--type=v5e-16", "--tries=1", "-c", code, code=1)
    while not all((vm.folder / f"ready{host}").exists() for host in (0, 1)):
        pass
    vm("stop", "--type=v5e-16")
    output, _ = vm("logs", "--type=v5e-16", code=75)
    assert "saved" in output and "host1 ended 75" in output


def test_a_vm_that_was_taken_back_is_made_again_by_the_same_command(vm):
    vm.write(vm="PREEMPTED", queued="SUSPENDED", spot="True")
    output, calls = vm("run", "--type=v5e-16", "-c", "print('again')")
    assert "Google has taken vitcnn back (PREEMPTED)" in output and "again" in output
    (create,) = (call for call in calls if "resources create" in call)
    assert "--spot" in create and "--node-id=vitcnn" in create
    order = [
        next(i for i, c in enumerate(calls) if word in c) for word in ("delete", "scp", "tail")
    ]
    assert order == sorted(order) and calls.index(create) < order[1]


def test_a_request_without_its_vm_is_named(cloud):
    cloud.write(queued="WAITING_FOR_RESOURCES")
    output, _ = cloud("run", "-c", "1", code=1)
    assert "the request for vitcnn is WAITING_FOR_RESOURCES: ./scripts/tpu_vm.sh create" in output
    cloud.write(queued="SUSPENDED")
    _, calls = cloud("create")  # without --queued: the request that is there says so
    assert any(call.startswith("queued-resources create vitcnn") for call in calls)


def test_a_vm_that_is_taken_back_meanwhile_is_named(vm):
    vm.fail("tail", code=255, vm="PREEMPTED")
    output, _ = vm("run", "--type=v5e-16", "-c", "print(1)", code=1)
    assert "taken vitcnn back (PREEMPTED): the same command makes a new VM and goes on" in output


MESSAGES = {
    "RuntimeError: The TPU is already in use by process with pid 7": "sudo lsof -w /dev/accel",
    "TPU backend initialization is taking more than 60.0 seconds": "start on all of its hosts",
    "Unable to initialize backend 'tpu'": "JAX does not see the TPU",
}


def test_messages_of_jax_are_explained(vm):
    code = f"raise SystemExit({chr(10).join(MESSAGES)!r})"
    output, _ = vm("run", "--type=v5e-16", "-c", code, code=1)
    for message, advice in MESSAGES.items():
        assert message in output and advice in output
    assert "host0 ended 1" in output and "an hour" in output


def test_a_host_without_the_environment_is_named(vm):
    shutil.rmtree(vm.folder / "host1/vitcnn/.venv")
    output, _ = vm("run", "--type=v5e-16", "-c", "print(1)", code=1)
    assert "wrong Python: ./scripts/tpu_vm.sh setup" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--type=v7-8"), "unknown type 'v7-8': expected v4-N, v5e-N"),
        (("create", "--type=v4-7"), "v4 counts TensorCores, two a chip"),
        (("create", "--type=v5p-4"), "expected a multiple of 8 TensorCores, such as v5p-8"),
        (("create", "--type=v5e-12"), "v5e has slices of 1, 4, 8, 16, 32, 64, 128 and 256 chips"),
        (("create", "--type", "v5e-8"), "needs its value after an equals sign, such as --type=v5e"),
        (("create", "--name=My_VM"), "name 'My_VM': expected small letters, digits and hyphens"),
        (("create", "--tries=ten"), "--tries=ten: expected a whole number from 1"),
        (("creat",), "unknown verb 'creat': expected create, setup"),
        (("create", "--zome=a"), "unknown option '--zome=a' of create"),
        (("run",), "run needs what Python is to run"),
        (("run", "-c", "1"), "there is no vitcnn in us-west4-a: ./scripts/tpu_vm.sh create"),
    ],
)
def test_bad_input_is_a_sentence(cloud, arguments, message):
    assert message in cloud(*arguments, code=1)[0]


def test_an_account_without_the_api_is_told_how(cloud):
    cloud.fail("describe", message="PERMISSION_DENIED: API has not been used in project p before")
    output, _ = cloud("create", code=1)
    assert "gcloud services enable tpu.googleapis.com" in output and "roles/" not in output
    cloud.fail("describe", message="Failed to find attribute [project]. The attribute can be")
    assert "name the project: --project=ID" in cloud("create", code=1)[0]


@pytest.mark.parametrize("verb", ["create", "setup", "logs", "status", "stop", "delete"])
def test_a_dry_run_calls_nothing(cloud, verb):
    output, calls = cloud(verb, "--dry_run")
    assert not calls
    assert "gcloud compute tpus" in output and "--zone=us-west4-a" in output
