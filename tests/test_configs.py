"""Every config says how it is run and what to expect, and its smallest form runs."""

import pytest
import running
from running import load

from vitcnn import training
from vitcnn.engine import analyze
from vitcnn.engine import config as configuration

CONFIGS = running.ROOT / "configs"


def configs(folder="."):
    return sorted((CONFIGS / folder).rglob("*.py"))


def name(path):
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", configs(), ids=name)
def test_config_opens_with_its_command(path):
    module = load(path)
    script = {"train": "train.py", "analyze": "analyze.py"}[path.relative_to(CONFIGS).parts[0]]
    command = f"python scripts/{script} --config=configs/{path.relative_to(CONFIGS)}"
    assert command in module.__doc__ and "--workdir=" in module.__doc__
    assert module.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("path", configs("analyze"), ids=name)
def test_analysis_config_is_valid_and_its_smallest_form_runs(path, tmp_path):
    config = load(path).get_config()
    for part in (config, *config.stages.values()):
        if "path" in part.data:  # the user's to give
            part.data.path = "images"
    configuration.check_config(config)
    if path.stem == "everything":
        return  # tests/test_everything.py runs it
    config = load(path).get_config("smallest")
    # Heads and last norms of a fresh network are zero: dead layers, which CKA names.
    with pytest.warns(UserWarning, match=r"cka: layers that do not vary .*/logits"):
        found = analyze.analyze(config, tmp_path, progress=False)
    assert len(found) >= 2 and all((tmp_path / f"{n}.nc").is_file() for n in found)


@pytest.mark.parametrize("network", ["vit", "resnet"])
@pytest.mark.parametrize("path", configs("train"), ids=name)
def test_training_config_is_valid_and_its_smallest_form_runs(path, network, tmp_path):
    training.check_config(load(path).get_config(network))
    config = load(path).get_config(f"{network},smallest")
    model = training.train(config, tmp_path, progress=False)
    assert model.provenance["weights"]["sha256"]
