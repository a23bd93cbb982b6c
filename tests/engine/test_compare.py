"""Arrays in memory: layers without names, of any library, and what is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from oracles import minibatch_cka

import vitcnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 6)).astype(np.float32), RNG.normal(size=(20, 4)).astype(np.float32)
XY = minibatch_cka(X, Y)


def test_one_array_is_a_layer_called_x_or_y():
    table = vitcnn.cka(X, Y)
    assert list(table.layer_x.values) == ["x"] and list(table.layer_y.values) == ["y"]
    assert abs(float(table.cka[0, 0]) - XY) < 1e-6
    xarray.testing.assert_identical(table, vitcnn.cka({"x": X}, {"y": Y}))
    xarray.testing.assert_identical(vitcnn.cka(X), vitcnn.cka({"x": X}))
    comparison = vitcnn.Comparison("procrustes")
    comparison.add(X[:10], Y[:10])
    comparison.add(X[10:], Y[10:])
    expected = vitcnn.compare({"x": X}, {"y": Y}, "procrustes", 10)
    xarray.testing.assert_identical(comparison.result(), expected)


@pytest.mark.parametrize("form", [list, tuple])
def test_a_list_is_layers_called_by_their_numbers(form):
    table = vitcnn.cka(form([X, Y]), {"y": Y})
    assert list(table.layer_x.values) == [0, 1] and list(table.layer_y.values) == ["y"]
    assert abs(float(table.cka.sel(layer_x=0, layer_y="y")) - XY) < 1e-6
    assert abs(float(table.cka.sel(layer_x=1, layer_y="y")) - 1) < 1e-6


@pytest.mark.parametrize("others", [None, {7: Y}])
def test_numbers_name_layers_also_dead_ones(others):
    dead = "xs[1]" if others else "1"
    with pytest.warns(UserWarning, match=rf"do not vary .*cka is NaN: {dead}".replace("[", r"\[")):
        table = vitcnn.cka({0: X, 1: np.ones((20, 3)), 2: Y}, others)
    other = 7 if others else 2
    assert abs(float(table.cka.sel(layer_x=0, layer_y=other)) - XY) < 1e-6
    assert np.isnan(table.cka.sel(layer_x=1)).all()
    assert list(table.layer_x.values) == [0, 1, 2]
    comparison = vitcnn.Comparison("cka")
    comparison.add({np.int64(0): X})
    comparison.add({0: X})


def test_other_names_become_text_unless_they_clash():
    table = vitcnn.cka({0: X, ("a", 1): Y})
    assert list(table.layer_x.values) == ["0", "('a', 1)"]
    assert abs(float(table.cka[0, 1]) - XY) < 1e-6
    with pytest.raises(ValueError, match="the layers 1 and '1' of ys have the same name"):
        vitcnn.cka(X, {1: X, "1": Y})


def arrays(x):
    """Returns the same numbers in every library, by name."""
    torch, pandas = pytest.importorskip("torch"), pytest.importorskip("pandas")
    return {
        "jax": jnp.asarray(x),
        "torch": torch.tensor(x),
        "torch with gradient": torch.tensor(x, requires_grad=True),
        "pandas": pandas.DataFrame(x),
        "xarray": xarray.DataArray(x),
        "nested lists": x.tolist(),
        "float64": x.astype(np.float64),
        "longdouble": x.astype(np.longdouble),
        "masked": np.ma.masked_array(x, False),
    }


def test_arrays_of_every_library_give_the_same_value():
    torch = pytest.importorskip("torch")
    xs, ys = arrays(X), arrays(Y)
    values = vitcnn.cka(xs, ys).cka
    np.testing.assert_allclose(values, XY, atol=1e-6)
    for name in ("torch", "pandas"):  # without names too
        assert abs(float(vitcnn.cka(xs[name], ys[name]).cka[0, 0]) - XY) < 1e-6, name
    whole = np.round(X * 4)
    kinds = {
        "integers": whole.astype(np.int8),
        "float16": whole.astype(np.float16),
        "bfloat16": jnp.asarray(whole, jnp.bfloat16),
        "torch.bfloat16": torch.tensor(whole, dtype=torch.bfloat16),
    }
    np.testing.assert_allclose(vitcnn.cka(kinds, Y).cka, minibatch_cka(whole, Y), atol=1e-6)
    table = vitcnn.cka({"booleans": X > 0, "one number": X[:, 0]}, Y)
    assert abs(float(table.cka[0, 0]) - minibatch_cka(X > 0, Y)) < 1e-6
    assert abs(float(table.cka[1, 0]) - minibatch_cka(X[:, :1], Y)) < 1e-6


def test_nan_and_infinity_are_named():
    bad = {"nan": np.where(X > 2, np.nan, X), "infinite": np.where(X > 2, np.inf, X), "x": X}
    with pytest.warns(
        UserWarning, match="NaN or infinite activations, cka is NaN: .*nan.*infinite"
    ):
        table = vitcnn.cka(bad, Y)
    assert np.isnan(table.cka[:2]).all() and abs(float(table.cka[2, 0]) - XY) < 1e-6


REAL = r"expected real features \[images, ...\]"
LAYERS = "expected a dict from the name of a layer to its features"
REFUSED = {
    "nothing": (({},), ValueError, "cka needs at least one layer in xs"),
    "no ys": ((X, {}), ValueError, "at least one layer in xs, and in ys"),
    "empty list": (([],), ValueError, "at least one layer in xs"),
    "None": ((None,), TypeError, f"xs is a NoneType: {LAYERS}"),
    "text": ((X, "rsa_pearson"), TypeError, f"ys is a str: {LAYERS}"),
    "rows": ((X.tolist(),), TypeError, f"xs is a list of list: {LAYERS}"),
    "generator": (((x for x in [X]),), TypeError, f"xs is a generator: {LAYERS}"),
    "None in a list": (([X, None],), TypeError, "xs is a list of NoneType"),
    "None in a dict": (({"a": X, "b": None},), ValueError, rf"xs\['b'\] is object \[\]: {REAL}"),
    "ragged": (({"a": [[1], [1, 2]]},), ValueError, r"xs\['a'\] is a list that NumPy cannot"),
    "words": (({"a": ["u", "v"]},), ValueError, rf"xs\['a'\] is <U1 \[2\]: {REAL}"),
    "objects": ((X, np.array([object()] * 20)), ValueError, rf"ys\['y'\] is object .*{REAL}"),
    "complex": (([X + 1j],), ValueError, rf"xs\[0\] is complex64 \[20, 6\]: {REAL}"),
    "times": ((np.zeros((20, 2), "M8[s]"),), ValueError, rf"is datetime64\[s\] .*{REAL}"),
    "random keys": ((jax.random.split(jax.random.key(0), 20),), ValueError, REAL),
    "number": (({"a": np.float32(1)},), ValueError, rf"xs\['a'\] is float32 \[\]: {REAL}"),
    "no features": ((X[:, :0],), ValueError, r"xs\['x'\] is float32 \[20, 0\]"),
    "masked": ((np.ma.masked_array(X, X > 1),), ValueError, r"xs\['x'\] has masked entries"),
    "0 images": ((X[:0],), ValueError, "at least 4 images, but group = 0 and there are 0"),
    "1 image": ((X[:1],), ValueError, "at least 4 images, but group = 1 and there are 1"),
    "3 images": ((X[:3],), ValueError, "at least 4 images, but group = 3 and there are 3"),
    "other images": ((X, Y[:9]), ValueError, r"xs\['x'\] has 20 but ys\['y'\] has 9"),
    "group of 0": ((X, Y, 0), ValueError, "but group = 0 and there are 20 images"),
    "group of 3": ((X, Y, 3), ValueError, "groups of at least 4 images, but group = 3"),
    "group of 21": ((X, Y, 21), ValueError, "only 20 images for cka; set group <= 20"),
    "group of 4.0": ((X, Y, 4.0), TypeError, "group = 4.0: expected a whole number of images"),
    "group of text": ((X, Y, "4"), TypeError, "group = '4': expected a whole number"),
    "group of True": ((X, Y, True), TypeError, "group = True: expected a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_layer_is_refused_by_name(case):
    args, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        vitcnn.cka(*args)
    if len(args) < 3 and case != "generator":
        comparison = vitcnn.Comparison("cka")
        with pytest.raises(error, match=message):
            comparison.add(*args)


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("kind", ["meta", "sparse", "quantised"])
def test_tensors_without_plain_numbers_are_refused_by_name(kind):
    torch = pytest.importorskip("torch")
    if kind == "meta":
        x = torch.zeros((20, 3), device="meta")
    elif kind == "sparse":
        x = torch.eye(20).to_sparse()
    else:
        x = torch.quantize_per_tensor(torch.ones(20, 3), 0.1, 0, torch.quint8)
    with pytest.raises(ValueError, match=r"xs\['a'\] is a Tensor that NumPy cannot convert: "):
        vitcnn.cka({"a": x})


def test_traced_arrays_are_refused_by_name():
    with pytest.raises(TypeError, match=r"xs\['x'\] is traced by JAX: .* outside of jax.jit"):
        jax.jit(lambda x: vitcnn.cka(x).cka.values)(X)


def test_groups_of_any_integer_type():
    expected = vitcnn.cka(X, Y, 5)
    assert abs(float(expected.cka[0, 0]) - minibatch_cka(X, Y, 5)) < 1e-6
    for group in (np.int64(5), np.array(5), jnp.int32(5)):
        xarray.testing.assert_identical(vitcnn.cka(X, Y, group), expected)


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        (None, {}, 'measure: expected a name such as "cka", got a NoneType'),
        ("neighbours", {"neighbours": 2.5}, "neighbours = 2.5: expected a whole number for neigh"),
        ("svcca", {"components": "3"}, "components = '3': expected a whole number for svcca"),
        ("neighbours", {"neighbours": True}, "neighbours = True: expected a whole number"),
        ("cka_rbf", {"bandwidth": None}, "bandwidth = None: expected a number for cka_rbf"),
    ],
)
def test_measures_and_options_of_a_wrong_type(measure, options, message):
    with pytest.raises(TypeError, match=message):
        vitcnn.compare(X, Y, measure, **options)


def test_later_groups_have_the_layers_of_the_first():
    comparison = vitcnn.Comparison("cka")
    comparison.add(X, Y)
    with pytest.raises(ValueError, match=r"this one has no ys\['y'\]$"):
        comparison.add(X)
    with pytest.raises(ValueError, match=r"no xs\['x'\], a new xs\[0\], a new xs\[1\]$"):
        comparison.add([X, X], Y)
    with pytest.raises(ValueError, match=r"xs\['x'\] has features \[4\] in this group, but \[6\]"):
        comparison.add(Y, Y)
    xarray.testing.assert_identical(comparison.result(), vitcnn.cka(X, Y))
