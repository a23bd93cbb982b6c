"""`python -m vitcnn` lists what there is, and runs the scripts with configs from any folder."""

import sys

import pytest
import running

from vitcnn import __main__ as command
from vitcnn import analyses, claims, command_line, lookup, models
from vitcnn import config as configs
from vitcnn.config import files
from vitcnn.data import sources
from vitcnn.similarity import measures

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # by config_flags

CONFIG = """
from ml_collections import ConfigDict

def get_config(size="none"):
    return ConfigDict({"size": size})
"""
# Family -> where weights come from that load into it.
LOADS = {
    "bit": ("big_transfer", "timm", "transformers"),
    "mixer": ("vision_transformer", "timm"),
    "resnet": ("torchvision", "Keras", "CIFAR-10", "transformers"),
    "vit": ("big_vision", "timm", "torchvision", "transformers"),
}


def entries(text, heading):
    """Returns the names of one section of the list."""
    (section,) = (part for part in text.split("\n\n") if part.startswith(heading))
    lines = section.splitlines()[1:]
    return [line.split()[0] for line in lines if line[2] != " "]


def test_the_list_has_every_plugin_and_every_config():
    text = command.overview()
    assert entries(text, "Model families") == ["bit", "mixer", "resnet", "vit"]
    for heading, package in (("Data sources", sources), ("Analyses", analyses)):
        assert entries(text, heading) == lookup.names_in(package)
    assert entries(text, "Measures") == list(measures.registered())
    assert all(f" {name} " in text for name in lookup.names_in(claims))
    numbers = entries(text, "Claims")
    assert numbers == sorted(numbers) and len(numbers) == len(lookup.names_in(claims))
    expected = sorted(str(p.relative_to(running.ROOT)) for p in running.ROOT.glob("configs/*/*.py"))
    assert entries(text, "Configs") == expected
    assert all(len(line) <= command.WIDTH for line in text.splitlines())


def test_the_list_of_models_has_variants_and_weights():
    blocks = dict(block.split(": ", 1) for block in command.networks().split("\n\n")[:-1])
    assert list(blocks) == lookup.names_in(models)
    for family, text in blocks.items():
        variants, weights = " ".join(text.split()).split(" weights: ")
        for variant in lookup.find("", models, family).VARIANTS:
            assert f" {variant}," in f"{variants}," and models.variant(family, variant) is not None
        assert all(library in weights for library in LOADS[family])


def test_a_command_runs_a_script(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    command.main(["analyze", "--config=configs/analyze/scenes.py", "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("Measures the models of a config in one pass over the images")
    assert "--config.analyses.cka.tokens" in printed
    with pytest.raises(ValueError, match="unknown command 'analyse': did you mean 'analyze'"):
        command.main(["analyse"])


def test_a_config_of_the_package_is_read_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert configs.read("configs/analyze/scenes.py").group == 100
    assert configs.read("configs/analyze/scenes.py:smallest").group == 8
    argv = command_line.with_config_path(["x", "--config", "configs/analyze/scenes.py:smallest"])
    assert argv[2] == f"{running.ROOT / 'configs/analyze/scenes.py'}:smallest"
    # A file of the user comes first.
    own = tmp_path / "configs/analyze/scenes.py"
    own.parent.mkdir(parents=True)
    own.write_text(CONFIG)
    assert configs.read("configs/analyze/scenes.py").size == "none"
    argv = command_line.with_config_path(["x", "--config=configs/analyze/scenes.py", "--a=b"])
    assert argv == ["x", "--config=configs/analyze/scenes.py", "--a=b"]


def test_a_config_that_is_not_there_is_a_sentence():
    with pytest.raises(FileNotFoundError, match=r"did you mean 'configs/analyze/scenes.py'"):
        configs.read("configs/analyse/scenes.py:smallest")


def test_a_wheel_has_its_configs_inside(monkeypatch, tmp_path):
    folder = tmp_path / "shipped/configs/analyze"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(CONFIG)
    monkeypatch.setattr(files, "_PACKAGE", tmp_path)
    assert files.names() == ["configs/analyze/a.py"]
    assert configs.read("configs/analyze/a.py:2").size == "2"
