"""Edits: every tap can be written, in every family and in networks of a user."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow
from networks import randomised

import vitcnn
from vitcnn import taps
from vitcnn.layers import transformer
from vitcnn.nnx_module import from_nnx

VIT = {
    **{"image_size": (8, 12), "patch": (4, 4), "width": 12, "depth": 2, "mlp_dim": 20},
    **{"heads": 2, "num_classes": 5},
}
MIXER = {
    **{"image_size": (8, 12), "patch": (4, 4), "width": 8, "depth": 2, "tokens_mlp_dim": 6},
    **{"channels_mlp_dim": 10, "num_classes": 5},
}
RESNET = {"image_size": (24, 32), "units": (1, 2), "widths": (32, 32), "num_classes": 5}
NETWORKS = {
    "class token": ("vit", "B/16", VIT),
    "gap": (
        "vit",
        "B/16",
        {**VIT, "pool": "gap", "norm_pooled": True, "no_skip": (1,), "local_blocks": (0,)},
    ),
    "distilled": ("vit", "B/16", {**VIT, "distilled": True}),
    "everything": (
        "vit",
        "B/16",
        {**VIT, "registers": 2, "layer_scale": 0.5, "gated": True, "pre_logits": 7},
    ),
    "mixer": ("mixer", "B/16", MIXER),
    "resnet": ("resnet", "R50x1", RESNET),
    "basic resnet": ("resnet", "20", {"image_size": 16, "units": (1, 2), "widths": (8, 16)}),
    "gated resnet": (
        "resnet",
        "resnetblur50d",
        {**RESNET, "groups": 4, "expansion": 1.0, "attention": "se", "stem_widths": (4, 6, 8)},
    ),
    "resnet version 2": ("resnet", "resnetv2_50t", {**RESNET, "stem_widths": (4, 6, 8)}),
    "bit": ("bit", "R50x1", RESNET),
}


@functools.cache
def network(name):
    family, variant, fields = NETWORKS[name]
    model = randomised(vitcnn.load(family, variant, **fields))
    rng = np.random.default_rng(1)
    return model, rng.normal(size=(3, *model.image_size, 3)).astype(np.float32)


def reactions(model, images, names):
    """Returns by how much the logits change with a small change of each tap: one program."""
    rng = np.random.default_rng(3)
    noise = [rng.normal(size=(3, *model.taps[name].shape)).astype(np.float32) for name in names]

    def logits(sizes):
        changes = {n: (lambda x, i=i: x + sizes[i] * noise[i]) for i, n in enumerate(names)}
        return model.forward(model.variables, images, (), changes)[0]

    one_by_one = np.concatenate([np.zeros((1, len(names))), 0.1 * np.eye(len(names))])
    intact, *changed = jax.jit(lambda sizes: jax.lax.map(logits, sizes))(np.float32(one_by_one))
    np.testing.assert_allclose(intact, model.run(images)[0], atol=1e-5)
    return {n: np.abs(x - intact).max() for n, x in zip(names, changed, strict=True)}


@pytest.mark.parametrize(
    "name",
    [slow(n) if "version" in n else n for n in NETWORKS],
)
def test_the_logits_depend_on_every_tap(name):
    model, images = network(name)
    assert model.taps.read_only == {}
    names = [info.name for info in model.taps.values() if info.is_skip or not info.alias]
    reacts = reactions(model, images, names)
    assert min(reacts.values()) > 1e-4, reacts


def test_a_head_by_head_loop_goes_on_with_edited_weights(monkeypatch):
    monkeypatch.setattr(transformer, "_LONG", 4)
    model, images = network("class token")
    model = vitcnn.Model(model.module, model.variables)  # with programs of its own
    name = "block00/attn_weights"
    assert reactions(model, images, [name])[name] > 1e-4
    _, got = model.run(images, ("block00/heads", name), edit={name: 0.25})
    np.testing.assert_array_equal(got[name], np.full((3, 2, 7, 7), 0.25, np.float32))
    uniform = 0.25 * sum_of_values(model, images)
    np.testing.assert_allclose(got["block00/heads"], uniform, atol=1e-5)


def sum_of_values(model, images):
    """Returns what the heads of the first block read, summed over tokens: [n, tokens, heads, d]."""
    _, got = model.run(images, "block00/ln1")
    block = model.variables["params"]["Transformer"]["encoderblock_0"]
    value = block["MultiHeadDotProductAttention_1"]["value"]
    values = np.einsum("ntw,whd->nthd", np.float64(got["block00/ln1"]), value["kernel"])
    total = (values + value["bias"]).sum(1, keepdims=True)
    return np.broadcast_to(total, values.shape)


def test_edited_attention_weights_go_into_the_heads():
    model, images = network("class token")
    name = "block00/attn_weights"
    _, got = model.run(images, "block00/heads", edit={name: jnp.full((7, 7), 1 / 7)})
    mean = sum_of_values(model, images) / 7
    np.testing.assert_allclose(got["block00/heads"], mean, atol=1e-5)


@pytest.mark.parametrize(("name", "branch"), [("everything", "attn"), ("mixer", "mlp")])
def test_a_branch_of_zero_is_no_branch(name, branch):
    model, images = network(name)
    _, got = model.run(images, "block01/*", edit={f"block01/{branch}": 0})
    before, after = {"attn": ("in", "mid"), "mlp": ("mid", "out")}[branch]
    np.testing.assert_array_equal(got[f"block01/{branch}"], np.zeros_like(got["block01/mid"]))
    if before == "in":
        _, before = model.run(images, "block00/out")
        np.testing.assert_array_equal(got["block01/mid"], before["block00/out"])
    else:
        np.testing.assert_array_equal(got[f"block01/{after}"], got["block01/mid"])
    # The same network with zeros for the weights of the last layer of the branch.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if weights_of(branch, jax.tree_util.keystr(path)) else x,
        model.variables,
    )
    logits, _ = vitcnn.Model(model.module, variables).run(images)
    edited, _ = model.run(images, edit={f"block01/{branch}": 0})
    assert not np.allclose(edited, model.run(images)[0], atol=1e-3)
    np.testing.assert_allclose(edited, logits, atol=1e-6)


def weights_of(branch, path):
    last = {
        "attn": ("MultiHeadDotProductAttention_1']['out", "token_mixing']['Dense_1"),
        "mlp": ("MlpBlock_3']['Dense_1", "channel_mixing']['Dense_1"),
    }[branch]
    return "ck_1" in path and any(layer in path for layer in last)


@pytest.mark.parametrize("name", ["class token", "mixer", "resnet", "bit"])
def test_skips_of_zero_are_no_skips(name):
    model, images = network(name)
    family, variant, fields = NETWORKS[name]
    numbers = (0, 1)
    skips = [tap for tap, info in model.taps.items() if info.is_skip]
    per_block = len(skips) // (2 if family in ("vit", "mixer") else 3)
    without = vitcnn.models.create(family, variant, **fields, no_skip=numbers)
    shapes = jax.eval_shape(without.init, jax.random.key(0), images)
    variables = part_of(model.variables, shapes)
    edit = {tap: 0.0 for tap in skips[: 2 * per_block]}
    logits, _ = model.run(images, edit=edit)
    expected, _ = vitcnn.Model(without, variables).run(images)
    np.testing.assert_allclose(logits, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-6)
    assert not np.allclose(logits, model.run(images)[0], atol=1e-3)


def part_of(tree, shapes):
    """Returns the variables that a network without some layers has."""
    return {
        key: part_of(tree[key], value) if isinstance(value, dict) else tree[key]
        for key, value in shapes.items()
    }


@pytest.mark.parametrize("name", ["distilled", "basic resnet"])
def test_patching_in_another_image_gives_its_logits(name):
    model, images = network(name)
    last = model.taps.select(("block*/out", "stage*/unit*/out")[name == "basic resnet"])[-1]
    logits, got = model.run(images, ("embed", last) if "embed" in model.taps else last)
    for tap in got:
        for edit in (got[tap][::-1], lambda x: x[::-1]):
            patched, captured = model.run(images, tap, edit={tap: edit})
            np.testing.assert_allclose(patched, logits[::-1], atol=1e-5)
            np.testing.assert_array_equal(captured[tap], got[tap][::-1])


def test_only_the_addition_sees_an_edited_skip_and_every_reader_an_edited_alias():
    model, images = network("class token")
    names = ("block00/out", "block01/in", "block01/ln1", "block01/mid", "block01/skip_attn")
    intact = model.forward(model.variables, images, names)[1]
    np.testing.assert_array_equal(intact["block01/skip_attn"], intact["block00/out"])
    edit = {"block01/skip_attn": lambda x: x + 3}
    got = model.forward(model.variables, images, names, edit)[1]
    np.testing.assert_array_equal(got["block01/skip_attn"], intact["block00/out"] + 3)
    np.testing.assert_array_equal(got["block00/out"], intact["block00/out"])
    np.testing.assert_array_equal(got["block01/ln1"], intact["block01/ln1"])
    np.testing.assert_allclose(got["block01/mid"], intact["block01/mid"] + 3, atol=1e-5)

    tilt = np.arange(12, dtype=np.float32)  # the norm would take out a factor
    both = {"block01/in": lambda x: x + tilt, "block01/skip_attn": lambda x: x + 3}
    got = model.forward(model.variables, images, names, both)[1]
    np.testing.assert_array_equal(got["block00/out"], intact["block00/out"] + tilt)
    np.testing.assert_array_equal(got["block01/in"], got["block00/out"])
    np.testing.assert_array_equal(got["block01/skip_attn"], intact["block00/out"] + tilt + 3)
    assert not np.allclose(got["block01/ln1"], intact["block01/ln1"], atol=1e-4)


def test_a_glob_edits_each_array_once():
    model, images = network("class token")
    doubled = {"block01/*": lambda x: 2 * x}
    names = ("block00/out", "block01/skip_attn", "block01/mid", "block01/skip_mlp")
    got = model.forward(model.variables, images, [*names, "block01/attn"], doubled)[1]
    intact = model.forward(model.variables, images, names)[1]
    np.testing.assert_array_equal(got["block00/out"], 2 * intact["block00/out"])
    np.testing.assert_array_equal(got["block01/skip_attn"], got["block00/out"])
    total = 2 * (got["block00/out"] + got["block01/attn"])
    np.testing.assert_allclose(got["block01/mid"], total, atol=1e-5)


def test_skips_are_selected_by_name_only():
    table = network("class token")[0].taps
    assert "block00/skip_attn" not in table.select("*")
    assert table.select("block01/skip_*") == ("block01/skip_attn", "block01/skip_mlp")
    assert table.select(("block01/skip_attn", "block00/out")) == (
        "block00/out",
        "block01/skip_attn",
    )
    assert table["block01/skip_attn"].role == "skip"
    assert "skip = block01/mid" in str(table)
    assert "block01/skip_attn" not in network("gap")[0].taps


def test_mean_ablation_and_casts():
    model, images = network("class token")
    _, got = model.run(images, "block01/mlp")
    mean = np.float64(got["block01/mlp"]).mean(0)
    logits, captured = model.run(images, "block01/mlp", edit={"block01/mlp": mean})
    np.testing.assert_allclose(captured["block01/mlp"], np.stack([mean] * 3), atol=1e-6)
    assert captured["block01/mlp"].dtype == np.float32
    same, _ = model.run(
        images, edit={"block01/mlp": lambda x: jnp.broadcast_to(x.mean(0), x.shape)}
    )
    np.testing.assert_allclose(logits, same, atol=1e-6)
    logits, got = model.run(images, "logits", edit={"logits": np.arange(5)})
    np.testing.assert_array_equal(logits, np.tile(np.arange(5, dtype=np.float32), (3, 1)))
    np.testing.assert_array_equal(got["logits"], logits)


def test_the_pooled_tokens_of_two_heads_move_together():
    model, images = network("distilled")
    params = jax.tree.map(np.float64, model.variables["params"])
    logits, got = model.run(images, "pooled")
    moved, _ = model.run(images, edit={"pooled": lambda x: x + 1})
    step = (params["head"]["kernel"] + params["head_dist"]["kernel"]).sum(0) / 2
    np.testing.assert_allclose(moved, logits + step, atol=1e-5)
    same, _ = model.run(images, edit={"pooled": got["pooled"]})
    np.testing.assert_array_equal(same, logits)


def test_one_compiled_forward_for_many_edits_and_gradients_of_an_edit():
    model, images = network("class token")
    kernel = np.float64(model.variables["params"]["head"]["kernel"])
    bias = np.float64(model.variables["params"]["head"]["bias"])
    values = np.random.default_rng(2).normal(size=(4, 12)).astype(np.float32)
    traces = []

    def logits(value):
        traces.append(value)
        return model.forward(model.variables, images, (), {"pooled": value})[0]

    expected = np.repeat((values @ kernel + bias)[:, None], 3, axis=1)
    np.testing.assert_allclose(jax.lax.map(logits, values), expected, atol=1e-5)
    assert len(traces) == 1
    np.testing.assert_allclose(jax.vmap(logits)(values), expected, atol=1e-5)
    many = jax.pmap(logits)(values[:1])
    np.testing.assert_allclose(many, expected[:1], atol=1e-5)
    slope = jax.grad(lambda v: model.run(images, edit={"pooled": v})[0].sum())(values[0])
    np.testing.assert_allclose(slope, 3 * kernel.sum(1), atol=1e-5)

    before = model._programs.cache_info().misses
    for value in values:
        got, _ = model.run(images, edit={"pooled": value})
        np.testing.assert_allclose(got, np.tile(value @ kernel + bias, (3, 1)), atol=1e-5)
    assert model._programs.cache_info().misses == before + 1


@pytest.mark.parametrize("name", ["distilled", "mixer", "basic resnet"])
def test_without_edits_the_program_is_the_same(name):
    """The network alone, its taps that are read or not, and an empty edit: one program."""
    model, images = network(name)
    bare = jax.make_jaxpr(lambda v, x: model.module.apply(v, x))(model.variables, images)

    def run(edit):
        function = lambda v, x: model.forward(v, x, (), edit)[0]  # noqa: E731
        return str(jax.make_jaxpr(function)(model.variables, images))

    assert run(None) == run({}) == str(bare)
    model.forward(model.variables, images, (), {"logits": 0})
    assert run(None) == str(bare)


def test_errors():
    model, images = network("class token")

    def fails(edit, message, error=ValueError):
        with pytest.raises(error, match=message):
            model.run(images, edit=edit)

    fails({"block00/atn": 0}, r"no tap matches 'block00/atn': did you mean 'block00/attn'")
    fails(
        {"block00/out": 0, "block01/in": 1},
        r"two entries for one array: 'block00/out' and 'block01/in' both match 'block00/out'",
    )
    fails({"block*/ln1": 0, "*/ln1": 1}, "'block\\*/ln1' and '\\*/ln1' both match 'block00/ln1'")
    fails(
        {"block00/attn": np.zeros((7, 11))},
        r"edit of tap 'block00/attn' is \[7, 11\], which does not broadcast to \[3, 7, 12\]",
    )
    fails({"pooled": np.zeros((2, 3, 12))}, r"is \[2, 3, 12\], which does not broadcast to \[3, 12")
    fails(
        {"pooled": lambda x: x[:, :5]},
        r"edit of tap 'pooled' returns float32 \[3, 5\] for float32 \[3, 12\]: a function has to",
    )
    fails({"pooled": lambda x: x.astype(jnp.bfloat16)}, r"returns bfloat16 \[3, 12\] for float32")
    fails({"pooled": lambda x: 0}, r"returns int \[\] for float32 \[3, 12\]")
    fails({"pooled": "zero"}, "edit of tap 'pooled' is a str: expected an array", TypeError)
    fails({"pooled": np.ones(12, complex)}, "is a complex128 array", TypeError)
    fails(["pooled"], "edit", TypeError)


# Networks of a user.

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


class Unit(nn.Module):
    """A block with a skip, whose tap is named by the name of the module, or a plain one."""

    declares: bool = False

    @nn.compact
    def __call__(self, x):
        y = jnp.tanh(nn.Dense(6, name="a")(x))
        if not self.declares:
            return x + nn.Dense(6, name="b")(y)
        y = taps.tap(self, f"{self.name}/hidden", y)
        x = vitcnn.skip_connection(self, f"{self.name}/skip", x, "start")
        return x + nn.Dense(6, name="b")(y)


UNITS = {"": Unit, "remat": nn.remat(Unit), "jit": nn.jit(Unit)}


class Net(nn.Module):
    """Two units within a transformation of Flax, and a function within one of JAX."""

    how: str
    declares: bool

    @nn.compact
    def __call__(self, x):
        x = jax.jit(jnp.sin)(nn.Dense(6, name="first")(x))
        x = taps.tap(self, "start", x) if self.declares else x
        one = UNITS[self.how](self.declares, name="one")(x)
        two = UNITS[self.how](self.declares, name="two")(x)
        return nn.Dense(3, name="last")(one + jax.jit(jnp.tanh)(two))


def oracle(variables, hidden=None):
    """Returns the logits of `Net` with other values for the hidden layers of its units."""
    p = jax.tree.map(np.float64, variables["params"])
    dense = lambda p, x: x @ p["kernel"] + p["bias"]  # noqa: E731
    x, hidden = np.sin(dense(p["first"], X)), hidden or {}
    one, two = (
        x + dense(p[u]["b"], hidden.get(u, np.tanh(dense(p[u]["a"], x)))) for u in ("one", "two")
    )
    return dense(p["last"], one + np.tanh(two))


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
@pytest.mark.parametrize("how", UNITS)
def test_no_trace_of_an_edited_run_is_taken_for_another(how, outer):
    """`nn.jit` keeps traces: the same call gives the same logits before and after an edit."""
    module = Net(how, declares=True)
    variables = module.init(jax.random.key(0), X)
    table = taps.tabulate(module, variables, X)
    assert {"one/hidden", "two/hidden", "one/skip"} <= set(table) and not table.left_out

    def logits(edit):
        run = lambda v, e: taps.forward(module, v, X, table, ["one/hidden"], e)  # noqa: E731
        if any(callable(e) for e in (edit or {}).values()):
            return outer(lambda v: run(v, edit))(variables)
        return outer(run)(variables, edit)

    for unit in ("one", "two", "one"):
        for value in (0.5, -2.0):
            np.testing.assert_allclose(logits(None)[0], oracle(variables), atol=1e-5)
            expected = oracle(variables, {unit: np.full((5, 6), value)})
            for edit in (value, lambda x, value=value: jnp.full_like(x, value)):
                got, captured = logits({f"{unit}/hidden": edit})
                np.testing.assert_allclose(got, expected, atol=1e-5)
                if unit == "one":
                    np.testing.assert_array_equal(captured["one/hidden"], np.full((5, 6), value))


@pytest.mark.parametrize("how", UNITS)
def test_outputs_of_submodules_are_edited(how):
    module = Net(how, declares=False)
    variables = module.init(jax.random.key(0), X)
    table = taps.tabulate(module, variables, X)
    p = jax.tree.map(np.float64, variables["params"])
    for unit, value in (("two", 0.25), ("one", 1.5)):
        edit = {f"{unit}/a": value}
        expected = oracle(variables, {unit: np.full((5, 6), np.tanh(value))})
        got, captured = taps.forward(module, variables, X, table, [f"{unit}/a"], edit)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        np.testing.assert_array_equal(captured[f"{unit}/a"], np.full((5, 6), value, np.float32))
        np.testing.assert_allclose(
            taps.forward(module, variables, X, table, [])[0], oracle(variables), atol=1e-5
        )
    got, _ = taps.forward(module, variables, X, table, [], {"one": 0, "two": 0})
    np.testing.assert_allclose(got, np.tile(p["last"]["bias"], (5, 1)), atol=1e-6)
    got, captured = taps.forward(module, variables, X, table, ["logits"], {"logits": lambda x: -x})
    np.testing.assert_allclose(got, -oracle(variables), atol=1e-5)
    np.testing.assert_array_equal(captured["logits"], got)


class Doubled(nn.Module):
    """A layer that is called twice, a wrapper that returns its array, and a tuple."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(6, name="layer")
        first, second = Pair(layer, name="pair")(x)
        return (jnp.sum(layer(first) * second, 1), second)


class Pair(nn.Module):
    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        y = self.layer(x)
        return y, jnp.cos(y)


def test_calls_are_numbered_and_parts_of_tuples_are_edited():
    module = Doubled()
    variables = module.init(jax.random.key(0), X)
    table = taps.tabulate(module, variables, X)
    assert sorted(table) == ["layer/1", "output:0", "output:1", "pair:0"]
    p = jax.tree.map(np.float64, variables["params"]["layer"])
    y = X @ p["kernel"] + p["bias"]

    def run(edit):
        return taps.forward(module, variables, X, table, [], edit)[0]

    twice, cosine = run({"layer/1": 2.0})
    np.testing.assert_allclose(twice, 2 * np.cos(y).sum(1), atol=1e-5)
    np.testing.assert_allclose(cosine, np.cos(y), atol=1e-5)
    # The array is called "pair:0", and is edited where the layer returns it: the cosine reads it.
    twice, cosine = run({"pair:0": 0.5})
    np.testing.assert_allclose(cosine, np.full((5, 6), np.cos(0.5)), atol=1e-6)
    z = np.full((5, 6), 0.5) @ p["kernel"] + p["bias"]
    np.testing.assert_allclose(twice, (z * np.cos(0.5)).sum(1), atol=1e-5)
    twice, cosine = run({"output:1": 3})
    layer = (y @ p["kernel"] + p["bias"]).sum(1)  # the network reads the cosine, too
    np.testing.assert_allclose(twice, 3 * layer, atol=1e-4)
    np.testing.assert_array_equal(cosine, np.full((5, 6), 3, np.float32))


class Sows(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("intermediates", "middle", x := nn.Dense(4)(x))
        return x


class Ignores(nn.Module):
    """It goes on with the arrays that it gives to `tap`, not with those that `tap` returns."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x)
        taps.tap(self, "ignored", x)
        vitcnn.skip_connection(self, "skipped", x, "ignored")
        return taps.tap(self, "logits", jnp.tanh(x))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            lambda layer, x, _: (layer(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        return layers(nn.Dense(6, name="layer"), x, None)[0]


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return taps.tap(self, "inside", nn.Dense(6, use_bias=False, name="d")(x))


apply_inner = jax.jit(Inner().apply)  # JAX keeps its trace for all runs


class Jitted(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = taps.tap(self, "before", nn.Dense(6)(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (6, 6))
        x = apply_inner({"params": {"d": {"kernel": kernel}}}, x)
        return taps.tap(self, "logits", x)


class Nnx(nnx.Module):
    def __init__(self):
        self.layer = nnx.Linear(6, 3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.layer(x)


@pytest.mark.filterwarnings("ignore:left out of the taps")
def test_what_cannot_be_edited_is_refused_with_a_reason():
    def refused(module, name, message):
        variables = module.init(jax.random.key(0), X)
        table = taps.tabulate(module, variables, X)
        with pytest.raises(ValueError, match=message):
            taps.forward(module, variables, X, table, [], {name: 0})

    refused(Sows(), "middle", "'middle' can be read, but not edited: it is what the network sows")
    refused(Ignores(), "ignored", "'ignored' can be .* not go on with what vitcnn.tap returns")
    refused(Ignores(), "skipped", "'skipped' can be read, but not edited")
    refused(Scanned(), "layer", "'layer' is left out: .* such as nn.scan, nn.vmap")

    refused(Jitted(), "inside", "no tap matches 'inside'")
    network, variables = from_nnx(Nnx())
    table = taps.tabulate(network, variables, X)
    with pytest.raises(ValueError, match=r"or the output of a module of flax\.nnx"):
        taps.forward(network, variables, X, table, [], {"logits": 0})
    assert taps.forward(network, variables, X, table, ["logits"])[0].shape == (5, 3)


@pytest.mark.filterwarnings("ignore:left out of the taps")
def test_a_function_that_jax_jit_keeps_computes_the_same_in_and_after_an_edited_run():
    module = Jitted()
    variables = module.init(jax.random.key(0), X)
    table = taps.tabulate(module, variables, X)
    p = jax.tree.map(np.float64, variables["params"])
    before = X @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    run = lambda edit: taps.forward(module, variables, X, table, ["logits"], edit)  # noqa: E731
    for value in (2.0, -1.0):
        for edit, x in (({"before": value}, np.full((5, 6), value)), (None, before)):
            np.testing.assert_allclose(run(edit)[0], x @ p["kernel"], atol=1e-5)
    program = str(jax.make_jaxpr(lambda x: taps.forward(module, variables, x, table, [])[0])(X))
    assert "name[" not in program  # by which `tabulate` marks what it follows


class Changing(nn.Module):
    """It has other taps when it trains."""

    @nn.compact
    def __call__(self, x, train=False):
        return x if train else taps.tap(self, "a", 2 * x)


def test_a_tap_that_is_not_computed_is_not_silently_left_as_it_was():
    table = taps.tabulate(Changing(), {}, X)
    with pytest.raises(ValueError, match="'a' is absent in this run: the network runs differently"):
        taps.forward(Changing(), {}, X, table, [], {"a": 0}, train=True)
