"""Scripts end with the message of an error that the package raises, and show where others arose."""

import subprocess
import sys

import pytest
import running

from vitcnn import command_line, lookup


def script(*arguments):
    """Returns what scripts/train.py, started with these arguments, writes to stderr."""
    run = subprocess.run(
        [sys.executable, "scripts/train.py", *arguments],
        cwd=running.ROOT,
        env=running.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 1
    return run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/train/scenes.py:vit", "--config.batch=0"],
            "error: config.batch = 0: expected a number from 1\n",
        ),
        (
            ["--config=configs/train/cifar.py:vit,smalest"],
            "error: unknown recipe 'smalest': did you mean 'smallest'?\n",
        ),
    ],
)
def test_an_error_of_a_config_is_one_sentence(tmp_path, arguments, message):
    assert script(*arguments, f"--workdir={tmp_path}") == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/train/sces.py:vit", "there is no config file configs/train/sces.py: did you"),
        ("", "--config is empty: expected a file such as configs/analyze/scenes.py"),
    ],
)
def test_a_config_that_is_not_there(monkeypatch, config, message):
    monkeypatch.chdir(running.ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", f"--config={config}", "--workdir=none"])
    with pytest.raises(SystemExit) as end:
        command_line.run(lambda config, workdir: None)
    assert message in end.value.code
    assert "\n" not in end.value.code


def raise_in_another_package():
    subprocess.run(["true"], check=True, timeout="a word")


@pytest.mark.parametrize(
    "fault", [lambda: [] + 1, raise_in_another_package, lambda: int("no number")]
)
def test_a_fault_shows_where_it_arose(fault):
    with pytest.raises((TypeError, ValueError)), command_line.messages_alone():
        fault()


def test_a_message_of_the_package_is_shown_alone():
    message = "error: unknown thing 'a': the choices are 'xyz'"
    with pytest.raises(SystemExit, match=message), command_line.messages_alone():
        lookup.check_name("thing", "a", ["xyz"])
