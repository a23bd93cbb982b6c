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
        ("configs/train/sces.py:vit", "did you mean 'configs/train/scenes.py'"),
        ("", "--config is empty: expected a file such as configs/analyze/scenes.py"),
    ],
)
def test_a_config_that_is_not_there(monkeypatch, config, message):
    monkeypatch.chdir(running.ROOT)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["train.py", f"--config={config}", "--workdir=none"])
    with pytest.raises((FileNotFoundError, ValueError)) as end:
        command_line.run(lambda config, workdir: None)
    assert message in str(end.value)


def shown(fault, capsys):
    """Returns what is shown of the error that a function raises."""
    try:
        fault()
    except Exception as error:
        command_line.show_error(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def raise_in_another_package():
    subprocess.run(["true"], check=True, timeout="a word")


@pytest.mark.parametrize(
    "fault", [lambda: [] + 1, raise_in_another_package, lambda: int("no number")]
)
def test_a_fault_shows_where_it_arose(fault, capsys):
    assert shown(fault, capsys).startswith("Traceback")


def test_a_message_of_the_package_is_shown_alone(capsys):
    text = shown(lambda: lookup.check_name("thing", "a", ["xyz"]), capsys)
    assert text == "error: unknown thing 'a': the choices are 'xyz'\n"
