"""Hosts: processes on this machine that join each other and run one task, for the tests.

    python tests/hosts.py COORDINATOR PROCESSES PROCESS OPTIONS

OPTIONS is a Python dictionary:

- task: "train", "analyze" or "ablate", or "meet" for nothing but a few exchanges;
- workdir: of the task; "{process}" in it is the number of the host, which then shares no disk;
- changes: fields of the config;
- changes_of: number of a host -> further fields of its config;
- store: folder of the buckets of `object_store`, if gs:// is used;
- timeout: seconds after which a host is given up;
- slow: (host, place, seconds): where a host comes late, a name of `parallel.exchange` or "batch";
- log: whether a host says when it has taken a step or measured a group.
"""

import ast
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).parent


def start(processes, devices=2, only=None, **options):
    """Starts the hosts; returns their processes.

    Args:
      processes: number of hosts of the run.
      devices: of each host.
      only: the hosts that come, all if None.
      **options: OPTIONS of this file.
    """
    with socket.socket() as s:
        s.bind(("localhost", 0))
        coordinator = f"localhost:{s.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))),
        "PYTHONUNBUFFERED": "1",
    }
    return [
        subprocess.Popen(
            [
                *(sys.executable, str(TESTS / "hosts.py"), coordinator),
                *(str(processes), str(i), repr(options)),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in (range(processes) if only is None else only)
    ]


def ends(hosts, timeout=300):
    """Returns (exit code, output) of each host, once all have ended; kills them after a time."""
    try:
        outputs = [host.communicate(timeout=timeout)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    return [(host.returncode, output) for host, output in zip(hosts, outputs, strict=True)]


def finish(hosts, timeout=300):
    """Returns the outputs of hosts, which have to end well."""
    ended = ends(hosts, timeout)
    assert [code for code, _ in ended] == [0] * len(hosts), "\n".join(o for _, o in ended)
    return [output for _, output in ended]


def await_line(host, text, timeout=300):
    """Reads the output of a host until a line has a text."""
    started = time.monotonic()
    for line in host.stdout:
        if text in line:
            return line
        assert time.monotonic() - started < timeout
    raise AssertionError(f"the host ended before {text!r}")


def measurement(**changes):
    """Returns a config of nine groups that takes two seconds."""
    return {
        "models": {"v": {"family": "vit", "variant": "mini/4", "depth": 1, "width": 24}},
        "data": {"source": "scenes", "size": 36, "classes": 4},
        "analyses": {
            "cka": {"models": ("v",), "taps": ("block*/out", "block*/mlp")},
        },
        "group": 4,
        "save_every_s": 0.0,
        **changes,
    }


def main(coordinator, processes, process, options):
    import vitcnn
    from vitcnn import data, parallel, training

    process = int(process)
    parallel.start(coordinator, int(processes), process, options.get("timeout", 60))
    print("joined", process)
    if "store" in options:
        import object_store

        object_store.install(options["store"], failures=0.1, delay=0.5)
    late, place, seconds = options.get("slow", (-1, "", 0))
    if late == process:
        exchange, batches = parallel.exchange, data.batches

        def come_late(name, value):
            if name == place:
                time.sleep(seconds)
            return exchange(name, value)

        def late_batches(*args, **kwargs):
            for i, batch in enumerate(batches(*args, **kwargs)):
                if place == "batch" and i == 2:
                    time.sleep(seconds)
                yield batch

        parallel.exchange, data.batches = come_late, late_batches
    workdir = options.get("workdir", "").format(process=process)
    changes = {**options.get("changes", {}), **options.get("changes_of", {}).get(process, {})}
    if options["task"] == "meet":
        meet(process)
    elif options["task"] == "ablate":
        import running

        config = running.load(TESTS.parent / "configs/ablations/skips.py")
        vitcnn.ablate(config.get_config("vit,smallest"), workdir, progress=False)
    elif options["task"] == "analyze":
        vitcnn.analyze(measurement(**changes), workdir, progress=False)
    else:
        import tiny_training

        try:
            training.train(tiny_training.tiny(**changes), workdir, progress=False)
        except training.Stopped as stopped:
            print(stopped)
            sys.exit(training.EXIT_CODE)
    print("ended", process)


def meet(process):
    import numpy as np

    from vitcnn import parallel
    from vitcnn.engine import identity

    assert parallel.exchange("values", {"host": process}) == [{"host": 0}, {"host": 1}]
    assert parallel.agree(process + 7) == 7
    assert parallel.any_host(process == 1) and not parallel.any_host(False)
    sums = parallel.meet({"a": np.full(3 + process, 1e-300 * (1 + process))})
    assert [part["a"].tolist() for part in sums] == [[1e-300] * 3, [2e-300] * 4]
    identity.check_hosts({"config": {"data": {"path": f"/{process}"}}}, {"config.data.path"})
    try:
        identity.check_hosts({"config": {"group": 20 + process, "seed": 0}}, ())
    except ValueError as error:
        print(error)
    with tempfile.TemporaryDirectory() as folder:  # another version of the package
        copy = pathlib.Path(folder, "vitcnn")
        shutil.copytree(TESTS.parent / "vitcnn", copy, ignore=shutil.ignore_patterns("*.pyc"))
        if process:
            with (copy / "edits.py").open("a") as file:
                file.write("# changed\n")
        identity.__file__ = str(copy / "engine/identity.py")
        try:
            identity.check_hosts({}, ())
        except ValueError as error:
            print(error)
    try:
        parallel.barrier("there" if process else "here")
    except RuntimeError as error:
        print(error)


if __name__ == "__main__":
    main(*sys.argv[1:4], ast.literal_eval(sys.argv[4]))
