"""What the only file that knows devices does without any."""

import subprocess
import sys
import textwrap

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


def test_a_folder_of_the_users_comes_first(tmp_path, monkeypatch):
    mine = str(tmp_path / "mine")
    assert run(tmp_path / "other", monkeypatch, JAX_COMPILATION_CACHE_DIR=mine)[1] == mine
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file/programs", monkeypatch)[1] == "None"
