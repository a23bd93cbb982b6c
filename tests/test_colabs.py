"""Notebooks: what they name exists, they start alike, and they run from top to bottom."""

import importlib.util
import json
import re
import shutil

import pytest
from names_in_notebooks import wrong_names
from running import ROOT, load

import vitcnn

NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
EXPECTED = {  # what each prints, and how many pictures it shows
    "bring_your_own": (("128 images of the classes", "early", "28 taps"), 2),
    "look_inside": (("block05/out", "intact: top-1 0."), 3),
    "see_like_a_cnn": (("top-1 accuracy 0.", "Claim 1", "Claim 9", "95% interval"), 8),
    "train_and_ablate": (("minus baseline", "lesion.baseline"), 6),
}


def cells(path):
    """Returns (kind, text) of each cell, after a check that no cell has outputs."""
    notebook = json.loads(path.read_text())
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "commit without outputs"
    assert "widgets" not in notebook["metadata"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def test_every_notebook_is_here():
    assert [path.stem for path in NOTEBOOKS] == sorted(EXPECTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_name_in_a_notebook_exists(path):
    assert wrong_names("\n".join(text for kind, text in cells(path) if kind == "code")) == []


SETUP = """
import numpy as np
import vitcnn
from vitcnn import config as configs
from vitcnn import figures
config = configs.measurement()
model = vitcnn.load("vit", "mini/4", num_classes=8)
"""
WRONG = {
    "vitcnn.lod('vit')": "vitcnn has no lod",
    "from vitcnn.report import pages": "vitcnn.report has no pages",
    "np.meen(3)": "np has no meen",
    "config.grup = 3": "config has no grup",
    "configs.analysis('cka', tokns='class')": "configs.analysis takes no tokns",
    "configs.source('scene')": "unknown data source 'scene': did you mean 'scenes'?",
    "vitcnn.load('vit', 'B/16', widht=3)": "vitcnn.load takes no widht",
    "vitcnn.cka(config, grup=3)": "vitcnn.cka takes no grup",
    "model.rum()": "model has no rum",
    "figures.heatmap([])": "figures has no heatmap",
    "print(undefined)": "undefined is not defined",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_name_that_does_not_exist_is_found(line):
    assert wrong_names(SETUP) == []
    assert wrong_names(SETUP + line) == [WRONG[line]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_starts_as_all_do(path):
    (_, title), (_, install), (_, parameters) = cells(path)[:3]
    assert install == cells(NOTEBOOKS[0])[1][1]
    (line,) = (line for line in install.splitlines() if line.startswith("REPOSITORY, TAG"))
    _, repository, _, tag, _ = line.split('"')
    assert tag == f"v{vitcnn.__version__}"
    address = f"https://colab.research.google.com/github/{repository}/blob/main/colabs/{path.name}"
    assert title.startswith("# ") and f'<a href="{address}">' in title
    assert f"]({address})" in (ROOT / "README.md").read_text()
    assert "SMALL = not on_colab" in parameters


def test_the_release_has_one_version_and_one_address(tmp_path):
    stamp = load(ROOT / "scripts/stamp_release.py")
    for path, text in stamp.stamped().items():
        assert path.read_text() == text, f"{path.name} is stale: run scripts/stamp_release.py"
    shutil.copytree(ROOT / "colabs", tmp_path / "colabs")
    shutil.copy(ROOT / "README.md", tmp_path)
    citation = re.sub(
        '(?<=github.com/).*(?=")', "some-body/v.t", (ROOT / "CITATION.cff").read_text()
    )
    (tmp_path / "CITATION.cff").write_text(citation)
    changed = stamp.stamped(tmp_path)
    assert [text.count("some-body/v.t") for text in changed.values()] == [1, 4, 2, 2, 2, 2]
    assert all(json.loads(changed[path]) for path in changed if path.suffix == ".ipynb")


@pytest.fixture(scope="module")
def execute():
    """The function of the script; loaded twice, it would define its flags twice."""
    return load(ROOT / "scripts/render_colabs.py").execute


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ipykernel"), reason="no kernel to run it in")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
# nbclient runs a kernel in another process; zmq warns of its own event loop and sockets.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_notebook_runs(execute, path, tmp_path):
    notebook = execute(path, tmp_path)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    printed = "".join(o.get("text", "") for o in outputs)
    words, count = EXPECTED[path.stem]
    assert len(pictures) >= count
    assert all(word in printed for word in words)
    # The first picture comes from one of the first cells, before anything long.
    with_picture = [i for i, c in enumerate(notebook.cells) if "image/png" in str(c.get("outputs"))]
    assert with_picture[0] <= 5
