"""Runs the notebooks and writes them, with their pictures, as HTML pages.

    pip install -e ".[colabs]"
    python scripts/render_colabs.py --out=rendered
    python scripts/render_colabs.py --out=rendered --notebooks=look_inside,bring_your_own

Notebooks are committed without outputs; these pages are for readers who do not want to run them.
Each notebook runs in its small form, and in a folder of its own.
"""

import pathlib
import tempfile

import nbformat
from absl import app, flags
from nbclient import NotebookClient

COLABS = pathlib.Path(__file__).parents[1] / "colabs"
OUT = flags.DEFINE_string("out", "rendered", "Folder for the pages; made if it does not exist.")
NOTEBOOKS = flags.DEFINE_list("notebooks", [], "Names of notebooks; all if it is left out.")


def execute(path, folder, timeout=1800):
    """Returns a notebook with the outputs that it has when it runs in a folder."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, resources=resources).execute()
    return notebook


def main(_):
    from nbconvert import HTMLExporter

    out = pathlib.Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    paths = [COLABS / f"{name}.ipynb" for name in NOTEBOOKS.value] or sorted(COLABS.glob("*.ipynb"))
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            page, _ = HTMLExporter().from_notebook_node(execute(path, folder))
        (out / f"{path.stem}.html").write_text(page)
        print(f"{out}/{path.stem}.html", flush=True)


if __name__ == "__main__":
    app.run(main)
