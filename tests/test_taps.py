"""Taps: their order, names and selection, and that one nobody reads costs nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitcnn import models, taps
from vitcnn.taps import alias, tap

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


class Tapped(nn.Module):
    """Names that would sort otherwise than they run, and one that is also a submodule's."""

    names: tuple[str, ...] = ("z", "y", "logits")

    @nn.compact
    def __call__(self, x, train=False):
        for i, name in enumerate(self.names):
            if i:
                alias(f"{name}_in", self.names[i - 1])
            x = tap(self, name, nn.Dense(5, name=name)(x), role="hidden", skip=f"{name}_in")
        return x


class PlainSow(nn.Module):
    """A user's network that knows only Flax."""

    @nn.compact
    def __call__(self, x):
        for name in ("second", "first"):
            x = Layer(name=name)(x)
        self.sow("intermediates", "end", x)
        return x


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5)(x)
        self.sow("intermediates", "hidden", x)
        self.sow("intermediates", "hidden", jnp.tanh(x))
        return x


class NoTaps(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(5, name="b")(x))
        return nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(3)], name="a")(x)


def tabulated(module, x=X):
    variables = module.init(jax.random.key(0), x)
    return variables, taps.tabulate(module, variables, x)


def test_order_is_that_of_execution_also_under_jit():
    module = Tapped()
    variables, table = tabulated(module)
    assert list(table) == ["z", "y_in", "y", "logits_in", "logits"]
    assert table.select("*") == ("z", "y", "logits")
    run = jax.jit(lambda v, x: taps.forward(module, v, x, table, table.select("*")))
    output, got = run(variables, X)
    dense = variables["params"]["z"]
    np.testing.assert_allclose(got["z"], X @ dense["kernel"] + dense["bias"], rtol=1e-6)
    np.testing.assert_array_equal(got["logits"], output)


def test_forward_returns_the_names_asked_in_their_order():
    module = Tapped()
    variables, table = tabulated(module)
    _, got = taps.forward(module, variables, X, table, ["logits", "y_in"])
    assert list(got) == ["logits", "y_in"]
    _, z = taps.forward(module, variables, X, table, ["z"])
    np.testing.assert_array_equal(got["y_in"], z["z"])
    assert taps.forward(module, variables, X, table, [])[1] == {}


def test_shapes_of_variables_and_images_are_enough():
    module = Tapped()
    images = jax.ShapeDtypeStruct(X.shape, jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    assert taps.tabulate(module, shapes, images, train=True)["y"].shape == (5,)


def test_no_array_is_selected_twice():
    _, table = tabulated(Tapped())
    assert table.select(("*_in",)) == ("y_in", "logits_in")
    assert table.select(("y_in", "z")) == ("z",)
    assert table.select(("logits_in", "z", "l*")) == ("z", "logits_in", "logits")
    assert table["logits_in"].alias == "y" and table["logits_in"].skip is None


def test_alias_of_an_alias_is_of_the_array():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            tap(self, "a", x)
            alias("b", "a")
            alias("c", "b")
            return x

    _, table = tabulated(Twice())
    assert table["c"].alias == "a"
    assert table.select("*") == ("a",)
    assert table.select(("c", "b")) == ("b",)
    _, got = taps.forward(Twice(), {}, X, table, ["c"])
    np.testing.assert_array_equal(got["c"], X)


def test_globs_match_whole_names_and_cross_slashes():
    module = models.create("vit", "mini/4", depth=2)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    table = taps.tabulate(module, shapes, images)
    assert table.select("block*/out") == ("block00/out", "block01/out")
    assert table.select("block0[1]*t") == ("block01/out",)
    assert table.select(("embed", "block01/in")) == ("embed", "block01/in")
    assert table.select(("block00/in", "block00/out", "block01/in")) == (
        "block00/in",
        "block00/out",
    )


def test_misspelt_name_is_answered_with_the_nearest():
    module = Tapped()
    variables, table = tabulated(module)
    with pytest.raises(ValueError, match=r"no tap matches 'logit': did you mean 'logits'"):
        table.select(("z", "logit"))
    with pytest.raises(ValueError, match=r"no tap matches 'Z'"):  # case counts
        table.select("Z")
    with pytest.raises(KeyError, match=r"no tap matches 'logit': did you mean 'logits'"):
        taps.forward(module, variables, X, table, ["logit"])


def test_a_name_declared_twice_is_an_error():
    module = Tapped(names=("a", "b"))
    variables, _ = tabulated(module)

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            return tap(self, "a", tap(self, "a", x))

    with pytest.raises(ValueError, match=r"tap 'a' is declared twice in one forward pass"):
        taps.tabulate(Twice(), {}, X)

    class Taken(nn.Module):
        @nn.compact
        def __call__(self, x):
            tap(self, "b", tap(self, "a", x))
            alias("b", "a")
            return x

    with pytest.raises(ValueError, match=r"tap 'b' is declared twice"):
        taps.tabulate(Taken(), {}, X)

    class Nowhere(nn.Module):
        @nn.compact
        def __call__(self, x):
            tap(self, "start", x)
            alias("b", "strat")
            return x

    with pytest.raises(ValueError, match=r"alias 'b': no tap 'strat' so far; did you mean 'start'"):
        taps.tabulate(Nowhere(), {}, X)
    module.apply(variables, X)  # a network whose pass failed leaves no trace behind


def test_what_a_users_network_sows_is_found():
    module = PlainSow()
    variables, table = tabulated(module)
    names = ["second/hidden", "second/hidden/1", "first/hidden", "first/hidden/1", "end"]
    assert list(table) == names
    variables = {"params": variables["params"]}
    output, got = taps.forward(module, variables, X, table, ["end", "first/hidden/1"])
    np.testing.assert_array_equal(got["end"], output)
    np.testing.assert_allclose(got["first/hidden/1"], np.tanh(output), rtol=1e-6)


def test_a_network_without_taps_is_listed_by_its_submodules():
    module = NoTaps()
    variables, table = tabulated(module)
    assert list(table) == ["b", "Dense_0", "logits"]
    assert [table[name].shape for name in table] == [(5,), (4,), (3,)]
    output, got = taps.forward(module, variables, X, table, ["b", "logits"])
    dense = variables["params"]["b"]
    np.testing.assert_allclose(got["b"], X @ dense["kernel"] + dense["bias"], rtol=1e-6)
    np.testing.assert_array_equal(got["logits"], output)


@pytest.mark.parametrize(("family", "variant"), [("vit", "mini/4"), ("resnet", "mini")])
def test_a_tap_that_nobody_reads_costs_nothing(family, variant):
    module = models.create(family, variant)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    assert "intermediates" not in shapes
    table = taps.tabulate(module, shapes, images)

    def cost(function):
        analysis = jax.jit(function).lower(shapes, images).compile().cost_analysis()
        return analysis["flops"], analysis["bytes accessed"]

    plain = cost(module.apply)
    assert cost(lambda v, x: taps.forward(module, v, x, table, [])[0]) == plain
    # Traced in, but not read by the caller: removed by XLA.
    assert cost(lambda v, x: taps.forward(module, v, x, table, list(table))[0]) == plain
    early = table.select(("block00/out", "stage1/unit01/out")[family == "resnet"])
    flops, accessed = cost(lambda v, x: taps.forward(module, v, x, table, early)[1])
    assert flops < 0.45 * plain[0] and accessed < 0.5 * plain[1]


def test_only_what_was_asked_is_captured():
    module = Tapped()
    variables, table = tabulated(module)
    assert set(variables) == {"params"}
    seen = []

    def run(variables, x):
        output, got = taps.forward(module, variables, x, table, ["y"])
        seen.append(list(got))
        return output, got

    assert list(jax.eval_shape(run, variables, X)[1]) == ["y"] and seen == [["y"]]
    # Flax's own way of asking gets all of them, under their full names.
    _, state = module.apply(variables, X, mutable=["intermediates"])
    assert set(state["intermediates"]) == {"z", "y", "logits"}


def test_table_prints_every_tap():
    _, table = tabulated(Tapped())
    lines = str(table).splitlines()
    assert len(lines) == 2 + 5
    assert lines[0].startswith("tap") and lines[0].endswith("added to")
    assert lines[2].split() == ["z", "hidden", "5", "z_in"]
    assert lines[3].split()[:3] == ["y_in", "=", "z"]
