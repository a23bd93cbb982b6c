"""Ablations: what is trained, measured and compared, and every statistic against NumPy."""

import itertools
import sys

import numpy as np
import pytest
import running
import xarray
from matplotlib.text import Text

import vitcnn
from vitcnn import ablations, results, training
from vitcnn.ablations import budget, driver, plan, summaries, text
from vitcnn.ablations.gather import factorial_effects
from vitcnn.config import check
from vitcnn.numerics.statistics import over_seeds
from vitcnn.report import ablation as report_ablation

FOLDER = running.ROOT / "configs" / "ablations"


def skips(argument="vit,smallest"):
    return running.load(FOLDER / "skips.py").get_config(argument)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """Returns (workdir, Results) of an ablation; the training of one network diverges."""
    workdir = tmp_path_factory.mktemp("ablation")
    settings = skips()
    settings.seeds = 3
    train = training.train

    def diverging(training_config, folder, **options):
        if folder.parts[-2:] == ("block00", "2"):
            raise FloatingPointError("the loss is not finite after step 1")
        return train(training_config, folder, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", diverging)
        return workdir, vitcnn.ablate(settings, workdir, progress=False)


def test_results_have_runs_and_seeds(ablation):
    accuracy = ablation[1]["accuracy"]
    assert accuracy.top1.dims == ("run", "seed")
    assert list(accuracy.run.values) == ["baseline", "block00"]
    for run, seed in (("baseline", 0), ("baseline", 2), ("block00", 1)):
        alone = results.load(ablation[0] / f"measurements/{run}/{seed}/accuracy.model.nc")
        assert accuracy.nll.sel(run=run, seed=seed) == alone.nll
        error = accuracy.nll_standard_error.sel(run=run, seed=seed)
        assert error == alone.nll_standard_error


def test_a_diverged_run_is_a_result_and_the_others_go_on(ablation):
    measured = ablation[1]
    assert measured["trainings"].diverged.sel(run="block00").values.tolist() == [0, 0, 1]
    assert np.isnan(measured["accuracy"].nll.sel(run="block00", seed=2))
    warnings = results.provenance(measured["accuracy"])["warnings"]
    assert warnings == ["block00/2 diverged: the loss is not finite after step 1"]
    assert "block00/2 diverged" in ablations.table(measured)


def test_differences_are_paired_by_seed(ablation):
    accuracy = ablation[1]["accuracy"]
    pairs = (accuracy.nll.sel(run="block00") - accuracy.nll.sel(run="baseline")).values[:2]
    at = accuracy.sel(run="block00")
    np.testing.assert_allclose(at.nll_difference, pairs.mean(), atol=1e-12)
    error = abs(pairs[0] - pairs[1]) / 2
    np.testing.assert_allclose(at.nll_difference_seed_error, error, rtol=1e-12)
    # Student's t with one degree of freedom has the quantile tan(0.475 pi).
    half = np.tan(0.475 * np.pi) * error
    np.testing.assert_allclose(at.nll_difference_half_width, half, rtol=1e-9)
    assert np.isnan(accuracy.nll_difference.sel(run="baseline"))


def test_seeds_share_first_weights_and_order_between_runs(ablation):
    settings = plan.make(skips(), ablation[0])
    for seed in (0, 1):
        a, b = (settings.training(plan.Network(run, seed)) for run in ("baseline", "block00"))
        assert a.seed == b.seed == seed
        assert a.data_seed == b.data_seed == -1
        assert (a.model.get("no_skip"), b.model.no_skip) == (None, (0,))


def test_a_finished_ablation_trains_nothing(ablation, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    settings = skips()
    settings.seeds = 3
    again = vitcnn.ablate(settings, ablation[0], progress=False)
    xarray.testing.assert_identical(again["accuracy"], ablation[1]["accuracy"])


def test_the_results_are_saved(ablation):
    workdir, measured = ablation
    for name, result in measured.items():
        xarray.testing.assert_allclose(results.load(workdir / f"{name}.nc"), result)


def test_chosen_networks_are_trained_and_nothing_is_measured(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(training, "train", lambda c, folder, **_: trained.append(folder))
    assert vitcnn.ablate(skips(), tmp_path, run="block00/1", progress=False) == {}
    assert trained == [tmp_path / "networks/block00/1"]


def test_a_run_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="--run=blok00 names no run: did you mean 'block00'"):
        vitcnn.ablate(skips(), tmp_path, run="blok00", progress=False)


def test_a_workdir_of_another_ablation(ablation):
    settings = skips()
    settings.baseline.learning_rate = 0.5
    with pytest.raises(ValueError, match=r"ablation.runs.baseline.learning_rate: 0.001 there, 0.5"):
        plan.make(settings, ablation[0])


def test_a_workdir_of_a_training(ablation):
    with pytest.raises(ValueError, match="holds a training or a measurement, and no ablation"):
        plan.make(skips(), ablation[0] / "networks/baseline/0")


def bad(change):
    settings = skips()
    with settings.unlocked():
        change(settings)
    return settings


def add_run(name, differences):
    return lambda settings: settings.runs.update({name: differences})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_run("x", {"model": {"no_skp": (0,)}}), r"config.runs.x: .*did you mean 'no_skip'"),
        (add_run("x", {"stepps": 3}), r"config.runs.x: unknown field .*did you mean 'steps'"),
        (add_run("Block00", {"steps": 3}), "two runs of one name"),
        (add_run("baseline", {"steps": 3}), "two runs of one name, 'baseline' and 'baseline'"),
        (add_run("x", {"data": {"size": 7}}), r"config.runs.x: .* images, fewer than the 8"),
        (add_run("x", {"model": {"no_skip": (9,)}}), r"config.runs.x: no_skip"),
        (lambda s: s.against.update(block00="bloc"), "unknown run in config.against.block00"),
        (lambda s: s.start.update(block00="block00"), "block00 starts from block00"),
        (lambda s: s.update(seeds=0), r"config.seeds = 0: expected a number from 1"),
        (lambda s: s.analyses.cka.update(taps=("blok*",)), "no tap of model matches 'blok"),
        (lambda s: s.analyses.cka.update(models=("model", "pared")), "did you mean 'paired'"),
        (lambda s: s.update(group=99), "group"),
    ],
)
def test_bad_input_is_told_before_the_first_step(change, message, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        vitcnn.ablate(bad(change), tmp_path, progress=False)


def test_another_seed_needs_two(tmp_path):
    settings = skips()
    settings.seeds = 1
    settings.analyses.cka.models = ("model", "other")
    with pytest.raises(ValueError, match=r"set config.seeds to 2 or more"):
        check.check_ablation(settings)


def test_a_part_that_names_its_plugin_takes_the_place_of_the_part():
    merged = check.changed(
        {"model": {"family": "vit", "variant": "B/16", "depth": 3}, "data": {"size": 3}},
        {"model": {"family": "resnet", "variant": "mini"}, "data": {"noise": 0.1}},
    )
    assert merged["model"] == {"family": "resnet", "variant": "mini"}
    assert merged["data"] == {"size": 3, "noise": 0.1}


def test_over_seeds_against_numpy():
    x = np.random.default_rng(0).normal(size=(3, 5))
    x[1, 2:] = np.nan
    x[2, 1:] = np.nan
    numbers = over_seeds(x)
    # Quantiles 0.975 of Student's t with 4 and 1 degrees of freedom, from a table.
    for row, n, quantile in ((0, 5, 2.7764451), (1, 2, 12.706205)):
        error = np.std(x[row, :n], ddof=1) / np.sqrt(n)
        np.testing.assert_allclose(numbers["mean"][row], np.mean(x[row, :n]), rtol=1e-12)
        np.testing.assert_allclose(numbers["deviation"][row], np.std(x[row, :n], ddof=1))
        np.testing.assert_allclose(numbers["standard_error"][row], error, rtol=1e-12)
        np.testing.assert_allclose(numbers["half_width"][row], quantile * error, rtol=1e-7)
    assert numbers["mean"][2] == x[2, 0]
    assert np.isnan(numbers["half_width"][2])
    assert np.isnan(over_seeds(np.full((1, 3), np.nan))["mean"][0])


def test_effects_of_a_factorial_design():
    # y = 2 amount + 5 hard + 3 amount hard, with amount in 1, 10, 100 and hard in 0, 1.
    cells = list(itertools.product((10, 1, 100), ("easy", "hard")))
    y = np.array([2 * a + (5 + 3 * a) * (h == "hard") for a, h in cells], float)[:, None]
    levels = {"amount": [a for a, _ in cells], "difficulty": [h for _, h in cells]}
    effects = factorial_effects(y, levels)
    assert effects["amount"] == pytest.approx(99 * (2 + 1.5))
    assert effects["difficulty"] == pytest.approx(5 + 3 * np.mean([1, 10, 100]))
    assert effects["amount:difficulty"] == pytest.approx(3 * 99)


def test_no_effects_of_an_unbalanced_design():
    assert factorial_effects(np.zeros((3, 1)), {"a": [0, 0, 1], "b": [0, 1, 0]}) == {}
    assert factorial_effects(np.zeros((2, 1)), {}) == {}


def test_heads_are_sorted_before_networks_are_compared():
    heads = np.array([[30.0, 10.0], [8.0, np.nan], [40.0, 20.0]])
    dims = ("layer", "head")
    result = xarray.Dataset(
        {"distance": (dims, heads), "distance_standard_error": (dims, heads / 10)},
        attrs={"uniform": 20.0},
    )
    summary = summaries.summarised("attention_distance", result)
    np.testing.assert_array_equal(summary.distance, [[10, 30], [8, np.nan], [20, 40]])
    np.testing.assert_array_equal(summary.distance_standard_error, summary.distance / 10)
    np.testing.assert_allclose(summary.layer_distance, [1.0, 0.4, 1.5])
    assert summary.lowest_distance == pytest.approx((30 + 10 + 8) / 3 / 20)
    assert summary.lowest_local == pytest.approx(0.4)


def test_same_layers_of_two_networks():
    layers = ["model/a", "model/b", "other/a", "other/b"]
    matrix = np.arange(16.0).reshape(4, 4)
    result = xarray.Dataset(
        {"cka": (("layer_x", "layer_y"), matrix)},
        {
            "layer_x": layers,
            "layer_y": layers,
            "model_of_x": ("layer_x", [name.split("/")[0] for name in layers]),
        },
    )
    summary = summaries.summarised("cka", result)
    assert list(summary.layer.values) == ["a", "b"]
    np.testing.assert_array_equal(summary.same_layer, [matrix[0, 2], matrix[1, 3]])


def test_the_budget_counts_products(tmp_path):
    settings = plan.make(skips(), tmp_path)
    cost = budget.costs(settings)["baseline"]
    # 16 patches and a class token of width 16, MLP 16, 2 blocks; patches of 8 x 8 x 3; 8 classes.
    patches = 16 * 192 * 16
    block = 17 * (4 * 16 * 16 + 2 * 16 * 16) + 2 * 17 * 17 * 16
    forward = patches + 2 * block + 16 * 8
    assert cost.flops == pytest.approx(3 * 2 * forward * 8 * 2)
    assert (cost.steps, cost.images) == (2, 32)
    lines = budget.text(settings, budget.costs(settings), settings.networks)
    assert "to train: 4 of 4 networks, 8 steps" in lines


def test_list_prints_one_command_a_network(tmp_path, monkeypatch, capsys):
    script = running.load(running.ROOT / "scripts" / "ablate.py")
    monkeypatch.setattr(sys, "argv", ["scripts/ablate.py", "--config=a.py", "--list"])
    monkeypatch.setattr(script, "LIST", type("Flag", (), {"value": True}))
    script.main(skips(), str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "python scripts/ablate.py --config=a.py --run=baseline/0"
    assert len(lines) == 4


def test_a_weak_baseline_voids_the_ablation(ablation):
    settings = skips()
    settings.least_accuracy = 0.85
    checked = plan.make(settings, ablation[0])
    weak = {"accuracy": {plan.Network("baseline", 0): xarray.Dataset({"top1": 0.5})}}
    assert driver._warnings(checked, {}, weak)[-1].startswith(
        "VOID: the accuracy of the baseline is 50.0%, below the 85%"
    )


NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("skips", "seeds"))


@pytest.mark.parametrize("name", [*NAMES, "skips:vit", "skips:resnet", "seeds:vit", "seeds:resnet"])
@pytest.mark.parametrize("size", ["smallest", "mini", "cifar10", "imagenet"])
def test_the_config_files_are_valid(name, size, tmp_path):
    file, _, family = name.partition(":")
    get_config = running.load(FOLDER / f"{file}.py").get_config
    argument = ",".join(filter(None, [family, size]))
    if size in ("cifar10", "imagenet") and file in SCENES:
        with pytest.raises(ValueError, match="size of this ablation"):
            get_config(argument)
        return
    settings = get_config(argument)
    if size == "cifar10":
        for data in (settings.data, settings.baseline.data, *_data_of(settings)):
            data.path = "cifar10.npz"
    checked = check.check_ablation(settings)
    assert checked.name == file
    assert set(checked.factors) <= set(checked.runs)
    if size == "smallest":
        driver._check_measurement(plan.make(settings, tmp_path))
        check_steps(file, settings, tmp_path)


def check_steps(file, settings, workdir):
    """All networks of an ablation take as many steps; of two trainings each, in finetune."""
    costs = budget.costs(plan.make(settings, workdir))
    assert len({cost.steps for cost in costs.values()}) == (2 if file == "finetune" else 1)


@pytest.mark.slow  # it opens all subsets of 20,000 images
@pytest.mark.parametrize("name", [*NAMES, "skips:vit", "skips:resnet", "seeds:vit", "seeds:resnet"])
def test_networks_of_size_mini_take_as_many_steps(name, tmp_path):
    file, _, family = name.partition(":")
    argument = ",".join(filter(None, [family, "mini"]))
    check_steps(file, running.load(FOLDER / f"{file}.py").get_config(argument), tmp_path)


SCENES = ("finetune", "amount_or_difficulty", "cnn_or_vit")


def _data_of(settings):
    return [stage.data for stage in settings.stages.values()]


@pytest.mark.slow
def test_a_cnn_and_a_vit_cost_the_same(tmp_path):
    settings = running.load(FOLDER / "cnn_or_vit.py").get_config("mini")
    costs = budget.costs(plan.make(settings, tmp_path))
    assert costs["cnn_both_100"].flops == pytest.approx(
        costs["baseline"].flops, rel=0.2
    )  # with padding
    assert costs["cnn_both_003"].images == 600


def test_two_seeds_make_one_pair(ablation):
    two = plan.make(skips(), ablation[0])
    seen = {str(n): sorted(two.compared(n)) for n in two.networks}
    assert seen["baseline/0"] == ["model", "other"]
    assert seen["baseline/1"] == ["model"]
    assert seen["block00/1"] == ["model", "other", "paired"]
    assert two.compared(plan.Network("block00", 1))["other"] == plan.Network("baseline", 0)


def test_the_error_over_images_is_a_root_mean_square():
    assert text.image_error(np.array([3.0, 4.0, np.nan])) == pytest.approx(12.5**0.5)


def test_the_report_draws_and_titles_an_ablation(ablation, tmp_path):
    drawn = report_ablation.draw(ablation[1])
    assert {"accuracy.top1", "accuracy.top1.block", "cka.lower_upper", "cka.maps"} <= drawn.keys()
    (axes,) = drawn["accuracy.nll.block"].axes
    line = axes.lines[0].get_xydata()
    difference = ablation[1]["accuracy"].nll_difference.sel(run="block00")
    np.testing.assert_allclose(line, [[0, difference]])
    texts = [text.get_text() for text in drawn["accuracy.nll.block"].findobj(Text)]
    assert "skips" in texts
