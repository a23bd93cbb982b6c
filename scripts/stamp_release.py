"""Writes the version and the address of the repository to where readers and notebooks need them.

    python scripts/stamp_release.py

The version is `__version__` in vitcnn/__init__.py, and the address is `repository-code` in
CITATION.cff. Change them there, and nowhere else.
"""

import pathlib
import re

from absl import app

import vitcnn

ROOT = pathlib.Path(__file__).parents[1]
CITATION = "CITATION.cff"


def stamped(root=ROOT):
    """Returns file -> text for every file that has the version or the address in it."""
    citation = (root / CITATION).read_text()
    (address,) = re.findall(r'^repository-code: "https://github\.com/(.+)"$', citation, re.M)
    version = vitcnn.__version__
    files = {root / CITATION: re.sub(r"(?m)^version: .*$", f"version: {version}", citation)}
    for path in (root / "README.md", *sorted((root / "colabs").glob("*.ipynb"))):
        text = path.read_text()
        text = re.sub(r"(?<=/github/)[\w.-]+/[\w.-]+(?=/blob/main/colabs/)", address, text)
        # Quotes are escaped in the JSON of a notebook.
        names = rf'REPOSITORY, TAG = \\"{address}\\", \\"v{version}\\"'
        files[path] = re.sub(r"REPOSITORY, TAG = [^,]*, [^,]*\\\"(?=\\n)", names, text)
    return files


def main(_):
    for path, text in stamped().items():
        if text != path.read_text():
            path.write_text(text)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    app.run(main)
