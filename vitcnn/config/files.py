"""Config files: those of the user, and those that come with the package.

A checkout has the folders `configs` and `scripts` beside the package. A wheel has copies of them in
`vitcnn/shipped`; setup.py puts them there. So "configs/analyze/scenes.py" names the same file from
any folder, unless the current folder has a file of that name.
"""

from __future__ import annotations

import importlib.util
import pathlib

from ml_collections import ConfigDict

from vitcnn.lookup import nearest

_PACKAGE = pathlib.Path(__file__).parents[1]


def shipped(folder: str) -> pathlib.Path:
    """Returns the folder "configs" or "scripts" that comes with the package."""
    inside = _PACKAGE / "shipped" / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def names() -> list[str]:
    """Returns the config files that come with the package: "configs/analyze/scenes.py"."""
    folder = shipped("configs")
    return sorted(str(path.relative_to(folder.parent)) for path in folder.rglob("*.py"))


def find(path: str) -> pathlib.Path:
    """Returns the path of a config file.

    Args:
      path: path of a file of the user, or one of `names()`.

    Raises:
      FileNotFoundError: there is no such file; the message lists the nearest names.
      ValueError: the path is empty.
    """
    if not path:
        raise ValueError("--config is empty: expected a file such as configs/analyze/scenes.py")
    for file in (pathlib.Path(path), shipped("configs").parent / path):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"there is no config file {path!r} here, nor with the package: {nearest(path, names())}"
    )


def read(config: str) -> ConfigDict:
    """Returns the config of a config file.

    Args:
      config: the path, see `find`; with a colon, also the argument of its `get_config`:
        "configs/analyze/scenes.py:smallest".

    Raises:
      FileNotFoundError: there is no such file; the message lists the nearest names.
    """
    path, _, argument = config.partition(":")
    file = find(path)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()
