"""The configs that come with the package: valid, documented, and settable by flag, all of them."""

import re

import pytest
import running
from absl import flags
from marks import slow
from ml_collections import ConfigDict, config_flags
from running import load

import vitcnn
from vitcnn import command_line, results
from vitcnn import config as configs
from vitcnn.data import augment
from vitcnn.report import growth

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # by config_flags

CONFIGS = running.ROOT / "configs"
# The arguments of each config file; "" is its default.
ARGUMENTS = {
    "ablations/amount_or_difficulty.py": ("smallest",),
    "ablations/augreg.py": ("smallest",),
    "ablations/cnn_or_vit.py": ("smallest",),
    "ablations/data.py": ("smallest",),
    "ablations/finetune.py": ("smallest",),
    "ablations/locality.py": ("smallest",),
    "ablations/pooling.py": ("smallest",),
    "ablations/seeds.py": ("vit,smallest", "resnet,smallest"),
    "ablations/skips.py": ("vit,smallest", "resnet,smallest"),
    "analyze/cifar10_pair.py": ("", "smallest"),
    "analyze/everything.py": ("", "smallest", "resnet50"),
    "analyze/fig01.py": ("", "paper", "smallest"),
    "analyze/imagenet_resnet50.py": ("", "smallest"),
    "analyze/public.py": ("", "smallest"),
    "analyze/scenes.py": ("", "smallest"),
    "train/bit.py": ("", "R152x2,jft", "R50x1,i21k,smallest"),
    "train/cifar.py": ("", "resnet,data=npz", "7/4,vit_lite,smallest"),
    "train/deit.py": ("", "B/16,deit3_finish", "H/14,deit3_i1k,data=folder", "S/16,deit,smallest"),
    "train/finetune.py": ("", "R50x1,pets,hyperrule", "B/32,flowers,linear_probe,smallest"),
    "train/mixer.py": ("", "S/32,i1k,smallest"),
    "train/resnet.py": ("", "50,batch_norm", "R50x1,i1k_scenic,smallest"),
    "train/scenes.py": ("vit", "resnet", "vit,smallest", "resnet,smallest"),
    "train/vit.py": ("", "B/16,augreg_i1k_medium2,wd=0.03", "R50x1,jft", "B/32,i21k,smallest"),
    "train/watch.py": ("", "smallest"),
}
EVERY = [(file, argument) for file, arguments in ARGUMENTS.items() for argument in arguments]
# Fields whose values are names that something has to have.
NAMES = {
    *("family", "variant", "source", "analysis", "optimizer", "schedule", "loss", "compute"),
    "on_device",
}
DURATIONS = ("every", "steps", "warmup", "cooldown", "snapshots")
OPTIONAL = ("resume_from", "profile", "family", "variant")  # "" is a value
BY_NAME = ("runs", "against", "start", "factors")  # of an ablation, by names that it chooses
# Fields that accept only some values -> (text of a flag, value).
SOME = {
    "precision": ("high", "high"),
    "profile": ("3:5", "3:5"),
    "name": ("some_text", "some_text"),
    "augment": ("flip,pad_crop(2)", ("flip", "pad_crop(2)")),
    "mu_dtype": ("bfloat16", "bfloat16"),
    "whole_targets": ("false", False),  # or the loss would be sigmoid
    "resume_from": ("", ""),  # or init_from
}


def paths(folder="."):
    return sorted((CONFIGS / folder).rglob("*.py"))


def name(path):
    return str(path.relative_to(CONFIGS))


def config_of(file, argument):
    get_config = load(CONFIGS / file).get_config
    return get_config(argument) if argument else get_config()


def check(config):
    if "baseline" in config:
        return configs.check_ablation(config)
    return (
        configs.check_training(config) if "steps" in config else configs.check_measurement(config)
    )


def test_every_config_is_walked():
    assert [name(path) for path in paths()] == sorted(ARGUMENTS)


@pytest.mark.parametrize("path", paths(), ids=name)
def test_config_opens_with_its_command(path):
    document = load(path).__doc__
    scripts = {"train": "train", "analyze": "analyze", "ablations": "ablate"}
    script = scripts[path.parent.name]
    assert f"python scripts/{script}.py --config=configs/{name(path)}" in document
    assert "Expected" in document or "expect" in document
    assert re.search(r"minute|hour", document)


def value_for(path, value, field):
    """Returns (text of a flag, the value that it stands for) that differs from what is there."""
    last = path.rpartition(".")[2]
    if last in NAMES:
        return value, value
    if last in SOME:
        return SOME[last]
    if last in DURATIONS or last.endswith("_every"):
        return "3 epochs", "3 epochs"
    if field.type is tuple and field.item is str:
        return "one,two", ("one", "two")
    return {
        int: ("7", 7),
        float: ("0.125", 0.125),
        bool: ("true", True) if value is not True else ("false", False),
        str: ("some/text", "some/text"),
        tuple: ("(3, 5)", (3, 5)),
        object: ("(3, 5)", (3, 5)),
    }[field.type]


def parsed(file, argument, arguments):
    """Returns the config after flags, as a script sees it."""
    path = f"{CONFIGS / file}:{argument}" if argument else CONFIGS / file
    argv = ["script", f"--config={path}", *arguments]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return holder.value


def at(config, path):
    for key in path.split(".")[1:]:
        config = config[key]
    return config


@pytest.mark.parametrize(("file", "argument"), EVERY)
def test_every_field_can_be_set_by_flag(file, argument, record_property):
    """Of every network, source, analysis, stage and optimizer of the config: it arrives, typed."""
    walked = list(configs.walk(config_of(file, argument)))
    given = {path: value_for(path, value, field) for path, value, field in walked}
    if file.startswith("ablations"):  # whose analyses see networks of three names
        networks = [path for path in given if re.fullmatch(r"config.analyses.\w+.models", path)]
        given |= dict.fromkeys(networks, ("other", ("other",)))
    config = parsed(file, argument, [f"--{path}={text}" for path, (text, _) in given.items()])
    checked = check(config)
    for path, (_, value) in given.items():
        assert at(checked, path) == value, path
    record_property("flags", len(given))
    print(f"{file}:{argument}: {len(given)} flags")


@pytest.mark.parametrize(("file", "argument"), EVERY)
def test_every_field_of_a_config_is_walked_and_documented(file, argument):
    config = config_of(file, argument)
    walked = {path: field for path, _, field in configs.walk(config)}

    def leaves(node, where):
        for key, value in node.items():
            if "baseline" in node and key in BY_NAME:
                continue
            if isinstance(value, ConfigDict):
                yield from leaves(value, f"{where}.{key}")
            else:
                yield f"{where}.{key}"

    assert set(leaves(config, "config")) == set(walked)
    silent = [path for path, field in walked.items() if not field.meaning]
    assert not silent, silent
    text = command_line.help_text("A script.", ["script", f"--config={CONFIGS / file}"])
    assert text.startswith("A script.\n\nFields of the config") and "has to be given" not in text


@pytest.mark.parametrize(("file", "argument"), EVERY)
def test_unset_fields_reach_nothing(file, argument):
    """A checked config has what is set, and no placeholder and no None."""
    config = config_of(file, argument)
    for path, value, _ in configs.walk(config):
        if value == "" and path.rpartition(".")[2] not in OPTIONAL:  # the user's to give
            config.update_from_flattened_dict({path.removeprefix("config."): "given"})
    checked = check(config)

    def leaves(node):
        for value in node.values():
            if isinstance(value, dict):
                yield from leaves(value)
            else:
                yield value

    assert all(
        value is not None and value != "" for value in leaves(checked.to_dict()) if value != ""
    )
    checked = checked.get("baseline", checked)
    model = next(iter(checked.models.values())) if "models" in checked else checked.model
    assert "depth" not in model or "smallest" in argument


MISSPELT = {
    "--config.data.stp=3": "--config.data.stp is not a field of the config: did you mean "
    "'config.data.stop'",
    "--config.models.vit.widht=3": "'config.models.vit.width'",
    "--config.analyses.cka.token=class": "'config.analyses.cka.tokens'",
    "--config.grup=3": "'config.group'",
}


@pytest.mark.parametrize("flag", MISSPELT)
def test_a_misspelt_flag_is_a_sentence(flag):
    argv = ["script", f"--config={CONFIGS / 'analyze/scenes.py'}", flag, "--config.group=8"]
    assert MISSPELT[flag] in command_line.unknown_flags(argv)
    assert not command_line.unknown_flags([*argv[:2], argv[3]])


ILL_TYPED = {
    "models.vit.depth": ("three", "config.models.vit.depth = 'three': expected a whole number"),
    "models.vit.gated": ("perhaps", "config.models.vit.gated = 'perhaps': expected true or false"),
    "data.size": (2.5, r"config.data.size = 2.5: expected a whole number"),
    "analyses.cka.bandwidth": ("wide", "config.analyses.cka.bandwidth = 'wide': expected a number"),
    "group": ("all", "config.group = 'all': expected a whole number"),
}


@pytest.mark.parametrize("path", ILL_TYPED)
def test_a_value_of_another_type_is_named(path):
    value, message = ILL_TYPED[path]
    config = config_of("analyze/scenes.py", "smallest").to_dict()
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(ValueError, match=message):
        configs.check_measurement(config)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("flip", ("flip",)),
        ("flip, pad_crop", ("flip", "pad_crop")),
        ("pad_crop(2, 'zero')", ("pad_crop(2, 'zero')",)),
        ("flip,cutout(8, fill=0)", ("flip", "cutout(8, fill=0)")),
        ("flip|randaugment(2, 15)", ("flip|randaugment(2, 15)",)),
        ("('flip', 'pad_crop(2)')", ("flip", "pad_crop(2)")),
    ],
)
def test_a_flag_holds_calls_with_commas(flag, expected):
    config = check(parsed("train/scenes.py", "vit", [f"--config.augment={flag}"]))
    assert config.augment == expected
    calls = [call for text in expected for call in text.split("|")]
    assert augment.parse(config.augment) == augment.parse(calls)


def test_values_are_typed_where_they_are_given():
    assert configs.analysis("cka", models="vit", taps="a,b").to_dict()["models"] == ("vit",)
    assert configs.model("vit", "B/16", no_skip=[3], layer_scale=1).no_skip == (3,)
    with pytest.raises(ValueError, match=r"vit B/16.depth = inf: expected a whole number"):
        configs.model("vit", "B/16", depth=float("inf"))


def test_constructors_name_the_nearest_field():
    with pytest.raises(ValueError, match="field of vit B/16: 'widht': did you mean 'width'"):
        configs.model("vit", "B/16", widht=3)
    with pytest.raises(ValueError, match="did you mean 'path'"):
        configs.source("npz", pth="")
    with pytest.raises(ValueError, match="did you mean 'tokens'"):
        configs.analysis("cka", token="class")
    with pytest.raises(ValueError, match="unknown field of a stage 'dta': did you mean 'data'"):
        configs.stage(dta={})
    with pytest.raises(ValueError, match="did you mean 'b2'"):
        configs.optimizer("adam", b3=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        # tests/test_devices.py runs scenes.py:smallest with fewer layers; everything.py runs the
        # networks of the CIFAR pair.
        pytest.param(path, id=name(path))
        for path in paths("analyze")
        if path.stem != "everything"  # tests/engine/test_everything.py runs it
    ],
)
def test_smallest_analysis_runs(path, tmp_path):
    config = load(path).get_config("smallest")
    # Heads and last norms of a fresh network are zero: dead layers, which CKA names.
    with pytest.warns(UserWarning, match=r"cka: layers that do not vary .*/logits"):
        found = vitcnn.analyze(config, tmp_path, progress=False)
    assert "cka" in found and all((tmp_path / f"{n}.nc").is_file() for n in found)


@pytest.mark.parametrize("network", [slow("vit"), "resnet"])
def test_smallest_training_runs(network, tmp_path):
    config = config_of("train/scenes.py", f"{network},smallest")
    model = vitcnn.train(config, tmp_path, progress=False)
    assert model.provenance["weights"]["sha256"]


def test_smallest_watch_runs_and_is_drawn(tmp_path):
    vitcnn.train(config_of("train/watch.py", "smallest"), tmp_path / "run", progress=False)
    names = growth.write(tmp_path / "run", tmp_path / "figures")
    assert {name.split(".")[1] for name in names} == {"accuracy", "attention_distance", "cka"}
    found = results.load_steps(tmp_path / "run/evaluations/end")["cka"]
    assert found.step.values.tolist() == [0, 2]
    last = found.sel(step=2, layer_x="model/embed", layer_y="final/embed")
    assert float(last.cka) == pytest.approx(1, abs=1e-6)
