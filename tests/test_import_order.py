"""A floor imports only lower floors, and heavy libraries only where they belong."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "vitcnn"

FLOORS = {
    "lookup": 0,
    "storage": 0,
    "parallel": 0,
    "numerics": 0,
    "taps": 1,
    "tap_layout": 2,
    "results": 1,
    "similarity": 1,
    "layers": 2,
    "data": 2,
    "figures": 2,
    "models": 3,
    "checkpoints": 4,
    "probes": 3,
    "analyses": 4,
    "model": 5,
    "config": 6,
    "engine": 7,
    "claims": 7,
    "training": 8,
    "report": 8,
    "command_line": 8,
}
# Libraries that are extras, or slow to import, and the only files that may import them at all.
ONLY_IN = {
    "torch": {"checkpoints/files/torch.py"},
    "tensorflow": set(),
    "huggingface_hub": {"checkpoints/fetch/hub.py"},
    "tensorflow_datasets": {"data/sources/tfds.py"},
    "grain": {"data/pipeline.py"},
}


def files():
    return sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, top_level_only=False):
    """Yields the absolute names that a file imports, with module and name joined by a dot."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_has_a_floor():
    assert {room(path) for path in files()} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = room(path)
    if here == "__init__":  # the public names come from every floor
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "vitcnn" and len(parts) > 1 and parts[1] != here:
            there = parts[1]
            assert there in FLOORS, f"{path.name} imports {name} through the public package"
            lower = FLOORS[there] < FLOORS[here]
            assert lower, f"{here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_stay_where_they_belong(path):
    inside = str(path.relative_to(PACKAGE))
    for name in imports(path):
        library = name.split(".")[0]
        assert library not in ONLY_IN or inside in ONLY_IN[library], f"{inside} imports {library}"
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] not in ("matplotlib", "torch"), f"{inside} imports {name} on top"


def test_no_file_is_too_long():
    long = {str(p): n for p in files() if (n := len(p.read_text().splitlines())) > 330}
    assert not long, f"split these: {long}"
