"""Command line: the flags that the scripts share, and --help with all fields of the config.

    python scripts/analyze.py --config=configs/analyze/scenes.py --config.group=50 --workdir=runs/a

`run` also does what the flags of ml_collections do badly or not at all. A config file that comes
with the package is found from any folder. A flag for a field that the config does not have is a
message with the nearest field. --help lists the fields of the config with their meanings. An error
that this package raises ends a script with its message alone; of any other error, which may be a
fault of the package, Python shows where it came from.
"""

from __future__ import annotations

import dis
import inspect
import itertools
import pathlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vitcnn import config as configs
from vitcnn import parallel
from vitcnn.config import files
from vitcnn.lookup import REQUIRED, nearest

PACKAGE = pathlib.Path(__file__).resolve().parent
HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull")
WIDTH = 100


def run(main: Callable[[ConfigDict, str], None], workdir: bool = True) -> None:
    """Runs the main function of a script on its config and workdir.

    Args:
      main: called with the config and the workdir; the docstring of its module is the help text.
      workdir: whether the script needs a workdir.
    """
    sys.excepthook = show_error
    sys.argv[:] = with_config_path(sys.argv)
    config = config_flags.DEFINE_config_file("config", None, "The config file.", lock_config=True)
    folder = flags.DEFINE_string("workdir", None, "Folder of the run, here or in a bucket.")
    coordinator = flags.DEFINE_string("coordinator", "", '"auto", or host:port of process 0.')
    processes = flags.DEFINE_integer("processes", 1, "Number of host processes.")
    process = flags.DEFINE_integer("process", 0, "Index of this host process.")
    timeout = flags.DEFINE_integer(
        "host_timeout", parallel.TIMEOUT, "Seconds after which a missing host is given up."
    )
    if any(argument in HELP for argument in sys.argv[1:]):
        print(help_text(inspect.getmodule(main).__doc__ or "", sys.argv))
        return
    if message := unknown_flags(sys.argv):
        sys.exit(message)
    flags.mark_flags_as_required(["config", *["workdir"] * workdir])

    def start(_):
        logging.set_verbosity(logging.WARNING)
        parallel.start(coordinator.value, processes.value, process.value, timeout.value)
        main(config.value, folder.value)

    app.run(start)


def run_without_config(main: Callable[[Sequence[str]], None]) -> None:
    """Runs the main function of a script that has flags of its own; as `app.run`."""
    sys.excepthook = show_error
    app.run(main)


def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """Shows an error that ends a script: its message alone if this package raises it.

    It takes the place of `sys.excepthook`.
    """
    cause = error
    if "Error whilst parsing config file" in str(error):  # the error of ml_collections
        while cause.__context__ is not None:
            cause = cause.__context__
    if isinstance(cause, Exception) and _is_message(cause.__traceback__):
        print(f"error: {cause}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _is_message(trace: TracebackType | None) -> bool:
    """Returns whether the error comes from a `raise` of this package, a script, or a config."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    is_raise = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    is_script = trace.tb_frame.f_globals["__name__"] == "__main__"
    is_config = "get_config" in trace.tb_frame.f_globals
    is_package = PACKAGE in pathlib.Path(code.co_filename).resolve().parents
    return is_raise and (is_package or is_script or is_config)


def with_config_path(argv: Sequence[str]) -> list[str]:
    """Returns the arguments of a process, in which --config has a path that exists.

    Raises:
      FileNotFoundError: there is no such config file; see `vitcnn.config.files.find`.
    """
    arguments = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if not equals:
            i, value = i + 1, argv[i + 1] if i + 1 < len(argv) else ""
        path, colon, rest = value.partition(":")
        prefix = f"{flag}=" if equals else ""
        arguments[i] = f"{prefix}{files.find(path)}{colon}{rest}"
    return arguments


def is_first_host() -> bool:
    """Returns whether this process is the one that prints."""
    return parallel.host()[0] == 0


def unknown_flags(argv: Sequence[str]) -> str:
    """Returns a message that names every flag for a field that the config lacks, "" without any.

    Args:
      argv: the arguments of the process.
    """
    config = _unchanged_config(argv)
    if config is None:
        return ""
    lines = []
    for argument in argv[1:]:
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("config.") and not _has(config, name.split(".")[1:]):
            paths = [path for path, _, _ in configs.walk(config)]
            lines.append(f"--{name} is not a field of the config: {nearest(name, paths)}")
    return "\n".join(lines)


def _has(config: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(config, ConfigDict) or key not in config:
            return False
        config = config[key]
    return True


def _unchanged_config(argv: Sequence[str]) -> ConfigDict | None:
    """Returns the config that --config names, before any flag sets a field; None without one."""
    path = _config_path(argv)
    if path is None:
        return None
    values, only_config = flags.FlagValues(), ["", f"--config={path}"]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=only_config)
    values(only_config)
    return holder.value


def _config_path(argv: Sequence[str]) -> str | None:
    """Returns FILE:ARGUMENT of --config=FILE:ARGUMENT, or None."""
    paths = [argument.partition("=")[2] for argument in argv if argument.startswith("--config=")]
    paths += [value for flag, value in itertools.pairwise(argv) if flag == "--config"]
    return paths[0] if paths else None


def help_text(docstring: str, argv: Sequence[str]) -> str:
    """Returns the help of a script, with the fields of the config if --config names one.

    Args:
      docstring: docstring of the script.
      argv: the arguments of the process.
    """
    config = _unchanged_config(argv)
    if config is None:
        ending = "Add --config=... to list its fields with their meanings."
        return f"{docstring.strip()}\n\n{ending}"
    lines = [docstring.strip(), "", "Fields of the config (--config.FIELD=VALUE):", ""]
    for path, value, field in configs.walk(config):
        if value is not None:
            state = f"= {value!r}"
        elif field.default is REQUIRED:
            state = "has to be given"
        elif field.default is None:
            state = "unset"
        else:
            state = f"unset, usually {field.default!r}"
        lines.append(f"--{path} ({_TYPES.get(field.type, 'any')}, {state})")
        lines += textwrap.wrap(
            field.meaning, WIDTH, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)


_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", tuple: "list"}
