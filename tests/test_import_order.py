"""A floor imports only lower floors, and heavy libraries only where they belong."""

import ast
import graphlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "vitcnn"

FLOORS = {
    "lookup": 0,
    "convert": 1,
    "storage": 0,
    "parallel": 0,
    "compilation": 0,
    "numerics": 0,
    "watch": 0,
    "edits": 0,
    "taps": 1,
    "nnx_module": 1,
    "tap_layout": 2,
    "results": 1,
    "similarity": 1,
    "layers": 2,
    "data": 2,
    "figures": 2,
    "models": 3,
    "recipe": 3,
    "checkpoints": 4,
    "probes": 3,
    "analyses": 4,
    "model": 5,
    "config": 6,
    "engine": 7,
    "claims": 7,
    "verdicts": 2,
    "training": 8,
    "report": 8,
    "ablations": 9,
    "command_line": 8,
    "__main__": 10,
}
# Libraries that are extras, or slow to import, and the only files that may import them at all.
ONLY_IN = {
    "torch": {"checkpoints/files/torch.py"},
    "tensorflow": set(),
    "huggingface_hub": {"checkpoints/fetch/hub.py"},
    "tensorflow_datasets": {"data/sources/tfds.py"},
    "tensorboardX": {"training/tensorboard.py"},
}

SIDE_BY_SIDE = ("similarity", "models", "data")
# Folders in which adding a file is registering a plugin; those that are still to come are empty.
PLUGINS = (
    "analyses",
    "checkpoints/families",
    "checkpoints/formats",
    "claims",
    "data/augment",
    "data/sources",
    "models",
    "similarity/measures",
)


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
            assert FLOORS[there] < FLOORS[here], f"{here} imports {there}, which is not below it"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_stay_where_they_belong(path):
    inside = str(path.relative_to(PACKAGE))
    for name in imports(path):
        library = name.split(".")[0]
        assert library not in ONLY_IN or inside in ONLY_IN[library], f"{inside} imports {library}"
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] not in ("matplotlib", "torch"), f"{inside} imports {name} on top"


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions count too: they hide a circle and do not break it."""
    modules = {module_name(path): path for path in files()}
    graph = {}
    for name, path in modules.items():
        # `from package import module` is an import of the module, of a name that of the package.
        found = (n if n in modules else n.rpartition(".")[0] for n in imports(path))
        graph[name] = {n for n in found if n in modules and n != name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("these files import each other: " + " <- ".join(error.args[1]))


@pytest.mark.parametrize("here", SIDE_BY_SIDE)
def test_similarity_models_and_data_do_not_import_each_other(here):
    others = {f"vitcnn.{there}" for there in SIDE_BY_SIDE if there != here}
    for path in (PACKAGE / here).rglob("*.py"):
        for name in imports(path):
            assert ".".join(name.split(".")[:2]) not in others, f"{path} imports {name}"


@pytest.mark.parametrize("folder", PLUGINS)
def test_a_folder_of_plugins_holds_nothing_but_plugins(folder):
    private = [p.name for p in (PACKAGE / folder).glob("_*.py") if p.name != "__init__.py"]
    assert not private, f"move these out of vitcnn/{folder}: {private}"
