"""What the only file that knows devices does without any."""

import contextlib
import socket
import subprocess
import sys
import textwrap
import threading

import jax
import numpy as np
import pytest
import running
from jax.sharding import AbstractMesh

from vitcnn import parallel

PROGRAM = """
    import pathlib, sys
    import jax
    import jax.numpy as jnp
    from vitcnn import parallel

    jax.jit(lambda x: x + 1)(jnp.ones(3))  # JAX has looked for a folder before
    folder = pathlib.Path(sys.argv[1])
    parallel.cache_programs(folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.ones(5))))
    print(jax.config.jax_compilation_cache_dir)
"""


def run(folder, monkeypatch, **environment):
    """Returns (value, folder of the cache) as a process of its own prints them."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_programs_are_kept_and_found_again(tmp_path, monkeypatch):
    first = run(tmp_path / "new/programs", monkeypatch)
    kept = {path.name for path in (tmp_path / "new/programs").iterdir()}
    assert first[1] == str(tmp_path / "new/programs") and kept
    assert run(tmp_path / "new/programs", monkeypatch) == first
    assert {n for n in kept if n.endswith("cache")} == {
        path.name for path in (tmp_path / "new/programs").glob("*cache")
    }


def test_other_folders_are_left_alone(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir  # that of these tests
    parallel.cache_programs(tmp_path / "other")
    assert jax.config.jax_compilation_cache_dir == before and not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        parallel.cache_programs(tmp_path / "file/programs")  # cannot be made, which is no error
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_large_arrays_are_divided_along_their_longest_axis(monkeypatch):
    monkeypatch.setattr(parallel, "_WORTH_DIVIDING", 20)
    mesh = AbstractMesh((4,), ("data",))
    arrays = {"small": (4, 4), "long": (8, 12), "first": (8, 10), "odd": (5, 7), "number": ()}
    found = parallel.shardings({name: np.zeros(s) for name, s in arrays.items()}, mesh, True)
    assert {name: tuple(sharding.spec) for name, sharding in found.items()} == {
        "small": (),
        "long": (None, "data"),
        "first": ("data",),
        "odd": (),
        "number": (),
    }
    whole = parallel.shardings({"long": np.zeros((8, 12))}, mesh, False)
    assert tuple(whole["long"].spec) == ()


def assemble(port, processes, process, timeout=10.0):
    """Starts a thread that joins; returns a function that waits for what it raises, None if not."""
    raised = []

    def join():
        try:
            parallel._assemble(f"localhost:{port}", processes, process, timeout)
        except (OSError, ValueError) as error:
            raised.append(error)

    thread = threading.Thread(target=join)
    thread.start()
    return lambda: (thread.join(), raised[0] if raised else None)[1]


@pytest.fixture
def port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def test_hosts_assemble_among_strangers(port):
    waits = [assemble(port, 3, i) for i in (2, 0)]
    connections = []
    while len(connections) < 2:
        with contextlib.suppress(OSError):
            connections.append(socket.create_connection(("localhost", port)))
            connections[-1].sendall(b"GET / HTTP/1.1\r\n\xff\n")
    waits.append(assemble(port, 3, 1))
    assert [wait() for wait in waits] == [None] * 3
    for connection in connections:
        connection.close()


def test_missing_hosts_are_named(port):
    first, third = assemble(port, 4, 0, timeout=1.5), assemble(port, 4, 2, timeout=1.5)
    assert str(first()).startswith(f"hosts 1, 3 of 4 did not join localhost:{port} in 1.5 s: start")
    assert f"host 0 has not answered at localhost:{port} for 1.5 s" in str(third())


def test_hosts_that_do_not_fit_together_are_named(port):
    waits = [assemble(port, 3, i) for i in (0, 1, 1)]
    assert sorted(str(wait()) for wait in waits) == ["two hosts have --process=1"] * 3
    waits = [assemble(port, 3, 0), assemble(port, 2, 1)]
    assert {str(wait()) for wait in waits} == {"host 1 has --processes=2, and host 0 3"}
    with pytest.raises(ValueError, match='expected "auto" or "host:port"'):
        parallel._assemble("localhost", 2, 0, 1)
    with socket.create_server(("", port)), pytest.raises(OSError, match=r"cannot listen .*in use"):
        parallel._assemble(f"localhost:{port}", 2, 0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 2), r"processes = 2 and .* coordinator = '' is one host alone: give the"),
        (("auto", 2, 1), r"coordinator = 'auto' finds the hosts by itself"),
        (("localhost:1", 2, 2), r"process = 2: expected 0 <= process < processes = 2"),
        (("localhost:1", 2, 0, 0), r"timeout = 0: expected seconds, 1 or more"),
    ],
)
def test_arguments_of_hosts_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parallel.start(*arguments)


def test_a_machine_that_is_no_cluster_is_named():
    code = "from vitcnn import parallel; parallel.start('auto')"
    run = subprocess.run(
        [sys.executable, "-c", code], env=running.environment(), capture_output=True, text=True
    )
    assert "JAX recognises no cluster here" in run.stderr and run.returncode
