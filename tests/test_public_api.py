"""The public names: what they are called with, their documentation and their annotations."""

import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import vitcnn

# A change here is a change that users notice: say so in CHANGELOG.md.
SIGNATURES = {
    "Comparison": "(measure='cka', **options)",
    "Model": "(module, variables, preprocess=..., provenance=..., call=..., kind='')",
    "Preprocess": "(size=None, resize=None, interpolation='bilinear', mean=(0.5, 0.5, 0.5), "
    "std=(0.5, 0.5, 0.5))",
    "TapInfo": "(name, role='', shape=(), grid=None, prefix_tokens=0, heads=None, skip=None, "
    "alias=None, class_token=False, window=None, layout='')",
    "TapTable": "(infos, origin=None, left_out=None)",
    "ablate": "(config, workdir, *, run='', progress=True)",
    "alias": "(name, target)",
    "analyze": "(config, workdir, *, models=None, source=None, progress=True)",
    "cka": "(xs, ys=None, group=None)",
    "compare": "(xs, ys=None, measure='cka', group=None, **options)",
    "load": "(family='', variant='', weights=None, *, preprocess=None, seed=0, new_head=False, "
    "position_resize='bicubic', position_grid=None, average=True, **overrides)",
    "skip_connection": "(module, name, value, target)",
    "tap": "(module, name, value, *, role='', grid=None, prefix_tokens=0, heads=None, skip=None, "
    "class_token=False, window=None, layout='')",
    "train": "(config, workdir, *, progress=True)",
}


def public_names():
    """Yields (dotted name, object) for every name in an `__all__` of the package."""
    packages = [vitcnn.__name__] + [
        m.name for m in pkgutil.walk_packages(vitcnn.__path__, "vitcnn.") if m.ispkg
    ]
    for package in map(importlib.import_module, packages):
        for name in getattr(package, "__all__", ()):
            yield f"{package.__name__}.{name}", getattr(package, name)


CALLABLES = {name: thing for name, thing in public_names() if callable(thing)}

TOP_LEVEL = {f"vitcnn.{name}" for name in vitcnn.__all__}


def shown(thing):
    """Returns a signature without annotations; a default that is made anew each time is `...`."""
    signature = inspect.signature(thing)
    bare = [
        p.replace(annotation=p.empty, default=... if "factory" in repr(p.default) else p.default)
        for p in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return text.replace("Ellipsis", "...")


def test_signatures_are_those_of_the_table():
    assert {name: shown(getattr(vitcnn, name)) for name in vitcnn.__all__} == SIGNATURES


@pytest.mark.parametrize("name", CALLABLES)
def test_public_name_is_documented_and_annotated(name):
    thing = CALLABLES[name]
    # A dataclass without a docstring gets its signature as one.
    doc = inspect.getdoc(thing) or ""
    assert doc and not doc.startswith(f"{thing.__name__}("), "no docstring"
    signature = inspect.signature(thing)
    parameters = signature.parameters.values()
    bare = [p.name for p in parameters if p.annotation is p.empty]
    assert not bare, f"not annotated: {bare}"
    if inspect.isfunction(thing):
        assert signature.return_annotation is not signature.empty, "the result is not annotated"
    # One parameter is explained by the first sentence; three are if only this project calls it.
    if len(parameters) > (1 if name in TOP_LEVEL else 3):
        section = re.split(r"^(?:Args|Attributes):$", doc, flags=re.MULTILINE)
        assert len(section) == 2, "no section Args or Attributes"
        described = re.findall(r"^  ([\w*, ]+):", section[1], flags=re.MULTILINE)
        names = {n.strip(" *") for line in described for n in line.split(",")}
        missing = [p.name for p in parameters if p.name not in names]
        assert not missing, f"not in Args: {missing}"


def test_the_package_is_typed():
    assert (pathlib.Path(vitcnn.__file__).parent / "py.typed").is_file()


def test_public_names_are_imported_when_they_are_asked_for():
    """In a process of its own: others have imported everything."""
    check = (
        "import sys, vitcnn; assert 'jax' not in sys.modules; "
        "assert set(vitcnn.__all__) == set(vitcnn._MODULES) <= set(dir(vitcnn)); "
        "vitcnn.load; assert not {'scipy.stats', 'orbax.checkpoint'} & set(sys.modules); "
        "assert all(getattr(vitcnn, name) for name in vitcnn.__all__); "
        "assert vitcnn.data.sources.names(); assert not hasattr(vitcnn, 'cka_of')"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
