"""Networks of a user that declare no taps: every output is right, or left out with a reason."""

import dataclasses

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitcnn import taps
from vitcnn.taps import tap

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def tabulated(module, x=X):
    """Returns variables away from zero, and the table of taps."""
    params = module.init(jax.random.key(0), x).get("params", {})
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda p: p + rng.normal(0, 0.3, p.shape).astype(np.float32), params)
    variables = {"params": noisy}
    return variables, taps.tabulate(module, variables, x)


def captured(module, variables, table, names=None, x=X):
    names = list(table) if names is None else names
    return taps.forward(module, variables, x, table, names)[1]


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def assert_equal(got, expected):
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=2e-5, err_msg=name)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(6, name="b")(nn.relu(nn.Dense(8, name="a")(x)))


def block(params, x):
    """Returns what `Block` computes: a, b and their sum with x."""
    a = dense(params["a"], x)
    b = dense(params["b"], np.maximum(a, 0))
    return a, b, x + b


CHECKPOINTED, JITTED = (
    nn.remat(Block),
    nn.jit(Block),
)  # one class for all runs


class Blocks(nn.Module):
    """Two blocks that are each called twice."""

    cls: type[nn.Module]

    @nn.compact
    def __call__(self, x):
        for name in ("one", "two"):
            part = self.cls(name=name)
            x = part(part(x))
        return nn.Dense(3)(x)


@pytest.mark.parametrize("cls", [Block, CHECKPOINTED, JITTED])
def test_every_call_is_a_tap_also_inside_remat_and_jit(cls):
    module = Blocks(cls)
    variables, table = tabulated(module)
    params, expected, x = variables["params"], {}, X.astype(np.float64)
    for name in ("one", "two"):
        for call in ("", "/1"):
            a, b, x = block(params[name], x)
            expected |= {f"{name}/a{call}": a, f"{name}/b{call}": b, f"{name}{call}": x}
    expected["logits"] = dense(params["Dense_0"], x)
    assert table.left_out == {}
    got = jax.jit(lambda v, x: captured(module, v, table, x=x))(variables, X)
    assert_equal({name: got[name] for name in table}, expected)  # jit sorts the names
    # A trace that `nn.jit` keeps from another choice of taps is not taken for this one.
    for names in (["two/a/1"], ["one", "logits"], []):
        assert_equal(captured(module, variables, table, names), {n: expected[n] for n in names})
    slope = jax.grad(lambda x: jnp.sum(captured(module, variables, table, ["one/a"], x)["one/a"]))
    kernel = np.asarray(params["one"]["a"]["kernel"])
    np.testing.assert_allclose(slope(X), np.tile(kernel.sum(1), (5, 1)), rtol=1e-5)


class Wrapper(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        return nn.relu(self.inner(x))


class Shared(nn.Module):
    """One module in two parents, and one that is used by its methods."""

    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(6, name="shared")
        x = Wrapper(shared, name="second")(Wrapper(shared, name="first")(x))
        coder = Coder(name="coder")
        code, width = coder.encode(x)
        return coder.decode(code) * width + self.doubled(x)

    def doubled(self, x):
        return 2 * x


class Coder(nn.Module):
    def setup(self):
        self.down, self.up = nn.Dense(4), nn.Dense(6)

    def encode(self, x):
        return jnp.tanh(self.down(x)), x.shape[-1]

    def decode(self, x):
        return self.up(x)


def test_shared_modules_and_methods():
    module = Shared()
    variables, table = tabulated(module)
    params, relu = variables["params"], lambda x: np.maximum(x, 0)
    first = dense(params["shared"], X)
    second = dense(params["shared"], relu(first))
    down = dense(params["coder"]["down"], relu(second))
    up = dense(params["coder"]["up"], np.tanh(down))
    expected = {
        "shared": first,
        "first": relu(first),
        "shared/1": second,
        "second": relu(second),
        "coder/down": down,
        "coder.encode:0": np.tanh(down),
        "coder.decode": up,
        "logits": 6 * up + 2 * relu(second),
    }
    assert_equal(captured(module, variables, table), expected)
    assert table.left_out == {}


class Derived(nn.Dense):
    @nn.compact
    def __call__(self, x):
        return super().__call__(x) + 1


class LogitsInside(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Derived(6, name="derived")(x)
        return nn.softmax(nn.Dense(3, name="logits")(x))


def test_a_class_that_extends_another_and_a_module_called_logits():
    variables, table = tabulated(LogitsInside())
    derived = dense(variables["params"]["derived"], X) + 1
    logits = dense(variables["params"]["logits"], derived)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {"derived": derived, "logits": logits, "output": share}
    assert_equal(captured(LogitsInside(), variables, table), expected)


class Transformed(nn.Module):
    """A transformation that runs its body many times, between two layers."""

    how: str
    taps: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="before")(x)
        declares, axes = self.taps, {"params": 0}
        if self.how.endswith("lifted"):
            axes["intermediates"] = 0

        class Body(nn.Module):
            @nn.compact
            def __call__(self, x, _=None):
                x = jnp.tanh(nn.Dense(6)(x))
                if declares:
                    tap(self, "inside", x)
                return x, None

        if self.how.startswith("scan"):
            scan = nn.scan(Body, variable_axes=axes, split_rngs={"params": True}, length=5)
            x, _ = scan(name="body")(x, None)
        else:
            heads = nn.vmap(
                Body, axes, split_rngs={"params": True}, in_axes=None, out_axes=1, axis_size=5
            )
            x = heads(name="body")(x)[0].mean(1)
        return nn.Dense(3, name="after")(x)


@pytest.mark.parametrize("how", ["scan", "vmap"])
def test_bodies_that_run_many_times_are_left_out(how):
    module = Transformed(how)
    variables, table = tabulated(module)
    params, x = variables["params"], dense(variables["params"]["before"], X)
    before, heads = x, []
    for i in range(5):
        part = jax.tree.map(lambda p: p[i], params["body"]["Dense_0"])
        y = np.tanh(dense(part, x))
        heads.append(y)
        x = y if how == "scan" else x
    x = x if how == "scan" else np.mean(heads, 0)
    expected = {"before": before, "logits": dense(params["after"], x)}
    assert_equal(captured(module, variables, table), expected)
    assert set(table.left_out) == {"body/Dense_0", "body"}
    with pytest.raises(ValueError, match=r"'body/Dense_0' is left out: .* such as nn.scan"):
        table.select("body/*")
    with pytest.raises(KeyError, match="'body/Dense_0' is left out"):
        table["body/Dense_0"]
    assert "left out: body/Dense_0, because it is computed inside a trans" in str(table)


@pytest.mark.parametrize("how", ["scan", "scan lifted", "vmap", "vmap lifted"])
def test_declared_taps_in_bodies_that_run_many_times_are_left_out_with_a_warning(how):
    """The body runs five times on five images: the wrong axis has the right length."""
    module = Transformed(how, taps=True)
    with pytest.warns(UserWarning, match=r"left out of the taps: inside: .*nn.scan, nn.vmap"):
        _, table = tabulated(module)
    assert list(table) == ["before", "logits"]
    with pytest.raises(ValueError, match=r"no tap matches 'ins.*': 'inside' is left out"):
        table.select("ins*")


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(nn.SimpleCell(4, name="cell"), name="rnn")(x[:, :, None])[:, -1])


def test_a_recurrent_network_has_its_sequence_as_a_tap():
    variables, table = tabulated(Recurrent())
    cell, state, states = variables["params"]["cell"], np.zeros((5, 4)), []
    for t in range(6):
        state = np.tanh(dense(cell["i"], X[:, t, None]) + state @ np.asarray(cell["h"]["kernel"]))
        states.append(state)
    expected = {
        "rnn": np.stack(states, 1),
        "logits": dense(variables["params"]["Dense_0"], state),
    }
    assert_equal(captured(Recurrent(), variables, table), expected)
    assert {"cell/i", "cell/h"} <= set(table.left_out)


RAW = {
    "jit": lambda f, x: jax.jit(f)(x),
    "checkpoint": lambda f, x: jax.checkpoint(f)(x),
    "vmap": lambda f, x: jax.vmap(f)(x),
    "scan": lambda f, x: jax.lax.scan(lambda x, _: (f(x), None), x, None, length=1)[0],
    "cond": lambda f, x: jax.lax.cond(x.sum() > -1e9, f, lambda x: x, x),
    "while": lambda f, x: jax.lax.fori_loop(0, jnp.int32(1), lambda _, x: f(x), x),
}


class Raw(nn.Module):
    """A submodule, a tap or a sown array inside a transformation of JAX."""

    how: str
    inside: str = ""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(6, name="layer")

        def f(x):
            y = layer(x)
            if self.inside == "tap":
                tap(self, "inside", y)
            if self.inside == "sow":
                self.sow("intermediates", "inside", y)
            return y

        return nn.Dense(3, name="after")(RAW[self.how](f, layer(x)))


@pytest.mark.parametrize("how", RAW)
def test_what_a_raw_transformation_computes_is_left_out(how):
    variables, table = tabulated(Raw(how))
    layer = dense(variables["params"]["layer"], X)
    logits = dense(variables["params"]["after"], dense(variables["params"]["layer"], layer))
    expected = {"layer": layer, "logits": logits}
    got = jax.jit(lambda v, x: captured(Raw(how), v, table, x=x))(variables, X)
    assert_equal({name: got[name] for name in table}, expected)
    why = table.left_out["layer (another call)"]
    assert "transformation of JAX that the network calls itself" in why and "use nn.jit" in why


@pytest.mark.parametrize("inside", ["tap", "sow"])
@pytest.mark.parametrize("how", ["jit", "vmap", "scan"])
def test_taps_in_a_raw_transformation_are_left_out_with_a_warning(how, inside):
    module = Raw(how, inside)
    with pytest.warns(UserWarning, match="left out of the taps: inside: it is "):
        variables, table = tabulated(module)
    assert list(table) == ["layer", "logits"]
    jax.jit(lambda v, x: captured(module, v, table, x=x))(variables, X)  # no tracer escapes


class Branches(nn.Module):
    """Branches that compute other arrays, which Flax does not let out."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="before")(x)
        with_tap = lambda module, x: tap(module, "inside", 2 * x)  # noqa: E731
        x = nn.cond(x.sum() > -1e9, with_tap, lambda module, x: x, self, x)
        return nn.Dense(3, name="after")(nn.remat(Block)(name="block")(x))


def test_branches_are_left_out():
    with pytest.warns(UserWarning, match=r"inside: .* nn.cond or nn.switch whose branches"):
        variables, table = tabulated(Branches())
    before = dense(variables["params"]["before"], X)
    x = block(variables["params"]["block"], 2 * before)[2]
    expected = {"before": before, "logits": dense(variables["params"]["after"], x)}
    assert_equal(captured(Branches(), variables, table), expected)
    assert {"inside", "block", "block/a", "block/b"} == set(table.left_out)


class Tapped(nn.Module):
    """A block that names its tap by its own name; `nn.jit` would share one trace of two of them."""

    @nn.compact
    def __call__(self, x):
        return tap(self, f"{self.name}/out", nn.Dense(6)(x))


TAPPED = {"": Tapped, "remat": nn.remat(Tapped), "jit": nn.jit(Tapped)}


class Declared(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x):
        cls = TAPPED[self.how]
        return cls(name="two")(cls(name="one")(x))


@pytest.mark.parametrize("how", TAPPED)
def test_declared_taps_inside_remat_and_jit(how):
    module = Declared(how)
    variables, table = tabulated(module)
    one = dense(variables["params"]["one"]["Dense_0"], X)
    expected = {"one/out": one, "two/out": dense(variables["params"]["two"]["Dense_0"], one)}
    for names in (["one/out", "two/out"], ["two/out"]):
        assert_equal(
            captured(module, variables, table, names), {name: expected[name] for name in names}
        )


@flax.struct.dataclass
class Pair:
    first: jax.Array
    second: jax.Array


@dataclasses.dataclass
class Plain:
    value: jax.Array


OUTPUTS = {
    "tuple": lambda x: (x, None, 2 * x),
    "nested": lambda x: {"p": (x, [2 * x])},
    "dataclass": lambda x: Pair(x, 2 * x),
    "no array": lambda x: (x, None, "words", 1.5),
    "integers": lambda x: jnp.argmax(x, -1),
    "booleans": lambda x: x > 0,
    "complex": lambda x: x + 1j,
    "scalar": lambda x: x.mean(),
    "no batch": lambda x: x.mean(0),
    "windows": lambda x: jnp.concatenate([x, x, x]),
    "empty": lambda x: x[:, :0],
    "unknown": Plain,
}
PARTS = {"tuple": (":0", ":2"), "nested": (":p:0", ":p:1:0"), "dataclass": (":first", ":second")}
FLAWS = {
    "integers": "it is int32, and analyses need real",
    "booleans": "it is bool, and",
    "complex": "it is complex64, and",
    "scalar": "it is one number for 5 images: its first axis does not run over the images",
    "no batch": "it is 6 for 5 images: its first axis",
    "windows": "it is 15x6 for 5 images: its first axis",
    "empty": "it is 5x0, which holds no number",
}


class Returns(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x):
        return OUTPUTS[self.how](nn.relu(nn.Dense(6, name="d")(x)))


class Holds(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x):
        Returns(self.how, name="part")(x)
        return nn.Dense(3, name="last")(x)


@pytest.mark.parametrize("how", OUTPUTS)
def test_outputs_that_are_no_single_array(how):
    variables, table = tabulated(Holds(how))
    d = dense(variables["params"]["part"]["d"], X)
    relu = np.maximum(d, 0)
    expected = {"part/d": d}
    if how in PARTS:
        expected |= {f"part{e}": n * relu for n, e in zip((1, 2), PARTS[how], strict=True)}
    if how == "no array":
        expected["part:0"] = relu
    expected["logits"] = dense(variables["params"]["last"], X)
    assert_equal(captured(Holds(how), variables, table), expected)
    assert list(table.left_out) == (["part"] if how in FLAWS else [])
    assert FLAWS.get(how, "") in table.left_out.get("part", "")


@pytest.mark.parametrize("how", OUTPUTS)
def test_networks_that_return_no_single_array(how):
    if how in ("unknown", "no array"):
        with pytest.raises(ValueError, match=r"the network returns a (Plain|str), expected an arr"):
            tabulated(Returns(how))
        return
    variables, table = tabulated(Returns(how))
    d = dense(variables["params"]["d"], X)
    expected = {"d": d}
    if how in PARTS:
        pairs = zip((1, 2), PARTS[how], strict=True)
        expected |= {f"output{end}": n * np.maximum(d, 0) for n, end in pairs}
    assert_equal(captured(Returns(how), variables, table), expected)
    assert list(table.left_out) == (["logits"] if how in FLAWS else [])


class Sows(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="d")(x)
        self.sow("losses", "other", x)
        self.sow("intermediates", "s", OUTPUTS[self.how](x))
        return x


def test_what_is_sown_has_parts_too():
    variables, table = tabulated(Sows("tuple"))
    d = dense(variables["params"]["d"], X)
    expected = {"s:0": d, "s:2": 2 * d}
    assert_equal(captured(Sows("tuple"), variables, table), expected)
    # Intermediates of an earlier run are not taken for those of this one.
    stale = {**variables, "intermediates": {"s": ((7 * X, None, 7 * X),)}}
    assert list(taps.tabulate(Sows("tuple"), stale, X)) == ["s:0", "s:2"]
    assert_equal(captured(Sows("tuple"), stale, table), expected)
    with pytest.warns(UserWarning, match="left out of the taps: s: it is one number"):
        assert list(tabulated(Sows("scalar"))[1]) == ["logits"]


class Attends(nn.Module):
    """Attention over the positions of a map that is not square."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(4, (3, 3), strides=4, name="conv")(images)
        tokens = x.reshape(len(x), -1, 4)
        tokens = nn.MultiHeadDotProductAttention(2, name="attention")(tokens, sow_weights=True)
        self.sow("intermediates", "map", tokens.reshape(x.shape))
        self.sow("intermediates", "channels_first", x.transpose(0, 3, 1, 2))
        return tokens.mean(1)


def test_only_what_has_the_proportions_of_the_image_is_a_map():
    images = np.ones((3, 16, 30, 3), np.float32)
    table = tabulated(Attends(), images)[1]
    grids = {"attention/attention_weights": None, "map": (4, 8), "channels_first": None}
    assert {name: info.grid for name, info in table.items()} == grids
    shapes = {name: info.shape for name, info in table.items()}
    assert shapes["attention/attention_weights"] == (2, 32, 32)
    assert shapes["channels_first"] == (4, 4, 8)
    assert [info.layout for info in table.values()] == ["vector", "map", "vector"]


class Numbered(nn.Module):
    """The second call of `a` and the submodule 1 of `a` have one name."""

    @nn.compact
    def __call__(self, x):
        part = NumberedPart(name="a")
        return part(part(x))


class NumberedPart(nn.Module):
    @nn.compact
    def __call__(self, x):
        return 1 + nn.Dense(6, name="1")(x)


class DependsOnBatch(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name="a")(x) if len(x) > 3 else x


def test_names_that_clash_and_networks_that_change_are_refused():
    with pytest.raises(ValueError, match="two arrays of the network are called 'a/1': rename"):
        tabulated(Numbered())
    variables, table = tabulated(DependsOnBatch())
    assert list(table) == ["logits"]
    table = taps.TapTable([dataclasses.replace(table["logits"], shape=(7,))], table.origin)
    with pytest.raises(ValueError, match=r"'logits' is \[5, 6\] in this run, expected \[5, 7\]"):
        captured(DependsOnBatch(), variables, table)


def test_what_is_no_array_or_no_linen_module_cannot_be_a_tap():
    class Pairs(nn.Module):
        @nn.compact
        def __call__(self, x):
            return tap(self, "pair", (x, x))

    with pytest.raises(TypeError, match=r"tap 'pair': expected an array .*, got a tuple"):
        taps.tabulate(Pairs(), {}, X)
    with pytest.raises(TypeError, match=r"expected the linen module .*self.sow"):
        tap(object(), "a", X)
