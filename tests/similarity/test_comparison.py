"""Features a group at a time against features in memory; adding a file adds a measure."""

import dataclasses
import sys
import textwrap
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import vitcnn
from vitcnn.analyses import Config, Group, View, similarity
from vitcnn.engine.groups import check_group
from vitcnn.engine.sums import Sums, estimate
from vitcnn.numerics.exact import to_host
from vitcnn.report import agreement
from vitcnn.similarity import measure as measuring
from vitcnn.similarity import measures
from vitcnn.taps import TapInfo

OPTIONS = {"neighbours": {"neighbours": 5}, "cka_rbf": {"bandwidth": 0.5}}


def features(n=64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5, 8)).astype(np.float32)
    return {"x": x, "far": 1e6 + x[:, 0].astype(np.float64), "y": rng.normal(size=(n, 30))}


def parts(layers, group):
    n = len(next(iter(layers.values())))
    for start in range(0, n, group):
        yield {name: x[start : start + group] for name, x in layers.items()}


@pytest.mark.parametrize("measure", sorted(measures.registered()))
def test_equals_compare_bit_for_bit(measure):
    xs, ys = features(70), features(70, seed=1)
    options = OPTIONS.get(measure, {})
    for others in (None, ys):
        comparison = vitcnn.Comparison(measure, **options)
        for x, y in zip(parts(xs, 30), parts(others or xs, 30), strict=True):
            comparison.add(x, None if others is None else y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CCA needs 20 images, the last group has 10
            tables = comparison.result(), vitcnn.compare(xs, others, measure, 30, **options)
        xarray.testing.assert_identical(*tables)


def test_groups_may_be_added_after_a_result():
    xs = features(60)
    comparison, groups = vitcnn.Comparison(), list(parts(xs, 20))
    comparison.add(groups[0])
    assert np.isnan(comparison.result().cka_standard_error).all()
    comparison.add(groups[1])
    comparison.add({name: groups[2][name] for name in reversed(list(xs))})  # in any order
    xarray.testing.assert_identical(comparison.result(), vitcnn.cka(xs, group=20))


def test_small_groups_are_left_out_with_a_warning_wherever_they_come():
    xs = features(43)
    comparison = vitcnn.Comparison("procrustes")
    for start, stop in ((0, 20), (20, 23), (23, 43)):
        comparison.add({name: x[start:stop] for name, x in xs.items()})
    with pytest.warns(UserWarning, match=r"^3 of 43 images are left out, .*: procrustes needs 4$"):
        table = comparison.result()
    kept = {name: np.delete(x, slice(20, 23), 0) for name, x in xs.items()}
    xarray.testing.assert_identical(table, vitcnn.compare(kept, None, "procrustes", 20))


def test_what_does_not_fit_is_named():
    xs = features()
    with pytest.raises(ValueError, match="unknown measure 'ckaa': did you mean 'cka'"):
        vitcnn.Comparison("ckaa")
    with pytest.raises(ValueError, match="unknown option of cca 'component': did you mean 'comp"):
        vitcnn.Comparison("cca", component=3)
    comparison = vitcnn.Comparison("cka")
    with pytest.raises(ValueError, match="comparison by cka has no images"):
        comparison.result()
    with pytest.raises(ValueError, match="at least one layer in xs"):
        comparison.add({})
    with pytest.raises(ValueError, match="cka needs groups of at least 4 images, but group = 3 "):
        comparison.add({"x": xs["x"][:3]})
    comparison.add(xs)
    with pytest.raises(ValueError, match=r"this one has no xs\['far'\], a new xs\['z'\]$"):
        comparison.add({"x": xs["x"], "y": xs["y"], "z": xs["y"]})
    with pytest.raises(ValueError, match=r"a new ys\['y'\]"):
        comparison.add(xs, {"y": xs["y"]})
    with pytest.raises(
        ValueError, match=r"xs\['y'\] has features \[29\] in this group, but \[30\]"
    ):
        comparison.add({**xs, "y": xs["y"][:, 1:]})
    with pytest.raises(ValueError, match=r"xs\['x'\] has 64 but xs\['y'\] has 63"):
        comparison.add({**xs, "y": xs["y"][1:]})
    xarray.testing.assert_identical(comparison.result(), vitcnn.cka(xs))


def test_the_size_of_a_group_is_checked_in_words_that_fit():
    check_group(2, 2, "accuracy")
    with pytest.raises(
        ValueError, match=r"^accuracy needs groups of at least 1 images, but group = 0"
    ):
        check_group(0, 9, "accuracy")
    with pytest.raises(ValueError, match=r"^cka needs groups of at least 4 .* there are 3 images"):
        check_group(8, 3, "cka", 4)
    with pytest.raises(
        ValueError, match=r"^group = 8, but there are only 7 images for cka; set group <= 7$"
    ):
        check_group(8, 7, "cka", 4)


def test_measures_that_share_an_option_share_its_default():
    every = measures.registered().values()
    defaults = measuring.default_options(every)
    for measure in every:
        assert {option: defaults[option] for option in measure.options} == measure.options
    assert defaults.items() <= dataclasses.asdict(similarity.Settings()).items()


TOY = '''
    """A distance: the root of the mean squared difference of normalised Gram matrices."""

    import jax.numpy as jnp

    from vitcnn.similarity.gram import centre
    from vitcnn.similarity.measure import GroupMean


    def matrix(layers, options):
        grams = [centre(k) for k in layers.gram_matrices]
        grams = jnp.stack([(k / jnp.linalg.norm(k)).ravel() for k in grams])
        return jnp.linalg.norm(grams[:, None] - grams[None], axis=-1) ** options["power"]


    MEASURES = (
        GroupMean(
            name="toy",
            title="Toy",
            long_name="toy distance",
            options={"power": 1},
            larger_is_more_alike=False,
            matrix=matrix,
        ),
    )
'''


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A file more in the folder of measures, and nothing else."""
    (tmp_path / "toy.py").write_text(textwrap.dedent(TOY))
    monkeypatch.setattr(measures, "__path__", [*measures.__path__, str(tmp_path)])
    yield
    sys.modules.pop(f"{measures.__name__}.toy", None)
    vars(measures).pop("toy", None)


def distance(x, y):
    grams = []
    for a in (x, y):
        a = np.asarray(a, np.float64).reshape(len(a), -1)
        a = (a - a.mean(0)) @ (a - a.mean(0)).T
        grams.append(a / np.linalg.norm(a))
    return np.linalg.norm(grams[0] - grams[1])


def test_adding_a_file_is_adding_a_measure(toy):
    xs = features()
    table = vitcnn.compare({"x": xs["x"]}, {"y": xs["y"]}, "toy", power=2)
    truth = distance(xs["x"], xs["y"]) ** 2
    assert float(table.toy[0, 0]) == pytest.approx(truth, rel=1e-5)
    assert table.toy.attrs["long_name"] == "toy distance"
    info = {name: TapInfo(name, shape=(8,)) for name in "ab"}
    taps = {"a": jnp.asarray(xs["x"][:, 0]), "b": jnp.asarray(xs["y"][:, :8], jnp.float32)}
    group = Group(jnp.zeros(64), None, {"m": View(None, taps, None, info, None)})
    settings = similarity.Settings(measures=("toy", "cka"))
    config = Config(settings, (("m", "a"), ("m", "b")), tuple(info.values()))
    sums = Sums()
    sums.add(to_host(similarity.measure(group, config, {})), 64, 0)
    result = estimate(sums, lambda total: similarity.finalize(total, config))
    assert list(result)[:2] == ["toy", "cka"], "in the order of the config"
    assert float(result.toy[0, 1]) == pytest.approx(distance(taps["a"], taps["b"]), rel=1e-5)
    titles = [axes.get_title(loc="left") for axes in similarity.draw([result]).axes]
    assert {"Toy", "CKA"} <= set(titles)
    assert measuring.LESS_ALIKE.items() <= result.toy.attrs.items()


def test_agreement_turns_the_sign_of_a_distance():
    cka = np.random.default_rng(0).normal(size=(6, 6))
    names = [f"m/{i}" for i in range(6)]
    dims = ("layer_x", "layer_y")
    attrs = {"long_name": "toy distance"}
    result = xarray.Dataset(
        {"cka": (dims, cka, {"long_name": "CKA"}), "toy": (dims, -(cka**3), attrs)},
        {"layer_x": names, "layer_y": names, "model_of_x": ("layer_x", ["m"] * 6)},
    ).assign_attrs(provenance='{"analysis": "similarity", "models": {"m": {}}}')
    (row,) = agreement({"similarity": result})
    assert row == {"result": "similarity", "measure": "toy distance", "m": pytest.approx(-1)}
    result.toy.attrs.update(measuring.LESS_ALIKE)
    (row,) = agreement({"similarity": result})
    assert row["m"] == pytest.approx(1)
