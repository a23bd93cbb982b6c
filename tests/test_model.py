"""The public Model: runs, taps in order, loads, and says what is wrong."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vitcnn


@pytest.fixture(scope="module")
def model():
    return vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64, num_classes=8, seed=3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)


def test_public_names_are_the_documented_ones():
    for name in vitcnn.__all__:
        assert getattr(vitcnn, name).__doc__, f"vitcnn.{name} has no docstring"
    assert {"load", "Model", "cka", "analyze", "tap", "Preprocess"} <= set(vitcnn.__all__)


def test_run_returns_logits_and_asked_taps_in_execution_order(model, images):
    logits, taps = model.run(images, ["norm", "block*/mlp", "embed"])
    assert list(taps) == ["embed", "block00/mlp", "block01/mlp", "norm"]
    assert logits.shape == (5, 8) and taps["block01/mlp"].shape == (5, 65, 48)
    plain = model.module.apply(model.variables, images)
    np.testing.assert_allclose(logits, plain, atol=1e-5)
    assert model.run(images)[1] == {}


def test_residual_taps_add_up(model, images):
    """What `skip` says is what happens: branch + skip = the tap behind it."""
    _, taps = model.run(images, "block01/*")
    _, whole = model.run(images, ["block01/in", "block01/mid", "block01/out"])
    assert model.taps["block01/attn"].skip == "block01/in"
    assert model.taps["block01/mlp"].skip == "block01/mid"
    np.testing.assert_allclose(
        whole["block01/in"] + taps["block01/attn"], whole["block01/mid"], atol=1e-5
    )
    np.testing.assert_allclose(
        whole["block01/mid"] + taps["block01/mlp"], whole["block01/out"], atol=1e-5
    )


def test_taps_print_as_a_table(model):
    lines = str(model.taps).splitlines()
    assert lines[0].split()[:2] == ["tap", "role"]
    row = next(line for line in lines if line.startswith("block01/attn "))
    assert "attention" in row and "65 x 48" in row and "8 x 8" in row and "block01/in" in row
    alias = next(line for line in lines if line.startswith("block01/in "))
    assert "= block00/out" in alias


def test_seeds_and_provenance(model):
    same = vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64, num_classes=8, seed=3)
    other = vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64, num_classes=8, seed=4)

    def kernel(m):
        return np.asarray(m.variables["params"]["embedding"]["kernel"])

    np.testing.assert_array_equal(kernel(model), kernel(same))
    assert np.abs(kernel(model) - kernel(other)).max() > 1e-3
    assert model.provenance["weights"] == {"format": "random", "seed": 3}
    assert model.provenance["fields"]["width"] == 48
    assert model.provenance["parameters"] == model.parameter_count


def test_parameter_count_is_that_of_the_formula(model):
    block = 4 * (48 * 48 + 48) + (48 * 64 + 64) + (64 * 48 + 48) + 2 * 2 * 48
    rest = (4 * 4 * 3 * 48 + 48) + 48 + 65 * 48 + 2 * 48 + (48 * 8 + 8)
    assert model.parameter_count == 2 * block + rest


def test_preprocessing_can_be_replaced_whole_or_in_part():
    part = vitcnn.load("vit", "mini/4", depth=1, preprocess={"mean": (0.1, 0.2, 0.3)})
    assert part.preprocess.mean == (0.1, 0.2, 0.3) and part.preprocess.size == (32, 32)
    whole = vitcnn.load("vit", "mini/4", depth=1, preprocess=vitcnn.Preprocess(std=(1, 1, 1)))
    assert whole.preprocess.std == (1, 1, 1) and whole.preprocess.size == (32, 32)
    assert whole.provenance["preprocess"]["std"] == (1, 1, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((5, 32, 32, 3), np.uint8), "uint8 .* use model.preprocess"),
        (np.zeros((5, 16, 16, 3), np.float32), r"\[5, 16, 16, 3\], expected .*32, 32, 3"),
        (np.zeros((32, 32, 3), np.float32), "expected preprocessed float"),
    ],
)
def test_images_that_do_not_fit_are_named(model, bad, message):
    with pytest.raises(ValueError, match=message):
        model.run(bad)


def test_misspelt_taps_are_answered_with_the_nearest(model, images):
    with pytest.raises(
        ValueError, match="no tap matches 'block00/mpl': did you mean 'block00/mlp'"
    ):
        model.run(images, "block00/mpl")


def test_a_users_module_without_a_size_is_asked_for_one():
    class Mine(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            assert not train
            return nn.Dense(3)(images.mean((1, 2)))

    variables = Mine().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    blind = vitcnn.Model(Mine(), variables, call={"train": False})
    with pytest.raises(ValueError, match="Preprocess"):
        print(blind.taps)
    sized = vitcnn.Model(Mine(), variables, vitcnn.Preprocess(size=8), call={"train": False})
    logits, taps = sized.run(np.ones((2, 8, 8, 3), np.float32), "*")
    np.testing.assert_array_equal(logits, taps["logits"])


def test_no_such_weights():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        vitcnn.load("vit", "mini/4", weights="nowhere.npz")


def test_resize_grows_with_the_network(tmp_path):
    """A crop fraction of 224 / 256 stays one when the network is made for larger images."""
    from vitcnn import checkpoints

    model = vitcnn.load("vit", "Ti/32", depth=1, image_size=384)
    checkpoints.export(tmp_path / "w.npz", model.variables)
    again = vitcnn.load("vit", "Ti/32", tmp_path / "w.npz", depth=1, image_size=384)
    assert again.preprocess == vitcnn.Preprocess(size=384)
    wide = vitcnn.load(
        "vit", "Ti/32", depth=1, image_size=384, preprocess={"size": (224, 224), "resize": 256}
    )
    assert wide.preprocess.size == (384, 384) and wide.preprocess.resize == round(256 * 384 / 224)
    both = {"size": (224, 224), "resize": (256, 280)}
    wide = vitcnn.load("vit", "Ti/32", depth=1, image_size=448, preprocess=both)
    assert wide.preprocess.resize == (512, 560)


@pytest.mark.parametrize(
    ("family", "variant", "kind"),
    [
        ("vit", "mini/4", "vit"),
        ("resnet", "mini", "cnn"),
        ("vitcnn.models.resnet", "mini", "cnn"),
    ],
)
def test_the_kind_of_a_model_comes_from_its_family(family, variant, kind):
    model = vitcnn.load(family, variant, "random")
    assert model.kind == model.provenance["kind"] == kind
    assert model.provenance["family"] == family.rpartition(".")[2]
    assert model.provenance["weights"] == {"format": "random", "seed": 0}


def test_the_kind_of_a_users_model_is_theirs_to_say(model):
    assert vitcnn.Model(model.module, model.variables).kind == ""
    assert vitcnn.Model(model.module, model.variables, kind="vit").kind == "vit"


def test_empty_weights_are_refused():
    with pytest.raises(ValueError, match=r'weights is the empty string; give .* or "random"'):
        vitcnn.load("vit", "mini/4", "")


def test_digest_follows_every_value(model):
    before = model.digest()
    changed = jax.tree.map(np.array, model.variables)
    changed["params"]["head"]["bias"][0] += 1e-6
    assert vitcnn.Model(model.module, changed, model.preprocess).digest() != before
    assert vitcnn.Model(model.module, model.variables).digest() == before
    assert model.classes == 8


class Trained(nn.Module):
    """A user's network with dropout, batch norm and more arguments than images."""

    drop: float = 0.0

    @nn.compact
    def __call__(self, images, scale, train=True):
        x = nn.Conv(4, (3, 3), name="conv")(images)
        if not self.drop:
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(self.drop, deterministic=not train)(x)
        return scale * nn.Dense(3, name="head")(x.mean((1, 2)))


SMALL = vitcnn.Preprocess(size=8)
CALL = {"scale": 2.0, "train": False}
PIXELS = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


def variables_of(module, channels=3, **call):
    return module.init(jax.random.key(0), jnp.ones((1, 8, 8, channels)), **call)


@pytest.fixture(scope="module")
def trained():
    return variables_of(Trained(), **CALL)


def logits_of(variables, images):
    """Returns what `Trained` computes with CALL, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    x = np.einsum("nhwcij,ijco->nhwo", windows, params["conv"]["kernel"]) + params["conv"]["bias"]
    x = x / np.sqrt(1 + 1e-5)  # the statistics of batch norm at the start are 0 and 1
    return 2 * (x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"])


@pytest.mark.parametrize("form", ["dict", "FrozenDict", "bfloat16", "float64", "bound"])
def test_variables_of_a_users_network(trained, form):
    module, variables = Trained(), trained
    if form == "FrozenDict":
        variables = flax.core.freeze(trained)
    if form in ("bfloat16", "float64"):
        variables = jax.tree.map(lambda x: np.asarray(x).astype(form), trained)
    if form == "bound":
        module = module.bind(trained)
    model = vitcnn.Model(module, variables, SMALL, call=CALL)
    assert list(model.taps) == ["conv", "Dropout_0", "head", "logits"]
    expected = logits_of(variables, PIXELS)
    np.testing.assert_allclose(model.run(PIXELS)[0], expected, rtol=1e-4, atol=1e-5)
    digest = vitcnn.Model(Trained(), trained, SMALL).digest()
    assert (model.digest() == digest) == (form not in ("bfloat16", "float64"))
    assert model.parameter_count == 3 * 9 * 4 + 4 + 4 + 4 + 4 * 3 + 3


def without_statistics(variables):
    return {"params": variables["params"]}


def with_a_wider_head(variables):
    head = {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)}
    return {**variables, "params": {**variables["params"], "head": head}}


REFUSED = {
    "batch norm": ({"call": {"scale": 2.0}}, r"call = {'scale': 2.0}: it updates its variables"),
    "missing argument": ({"call": {}}, r"its call takes \(images, scale, train\); set those after"),
    "misspelt argument": ({"call": {**CALL, "trian": True}}, r"its call takes .*'trian'"),
    "one level too deep": (lambda v: v["params"], r"variables lack .* these hold \['conv', 'norm'"),
    "no statistics": (without_statistics, r"variables lack what it reads.*\['params'\].*\"mean\""),
    "no variables": (lambda v: {}, r"these hold \[\]"),
    "wider head": (with_a_wider_head, r'other shapes than .* "kernel" in "/head"'),
    "one channel": (
        lambda v: variables_of(Trained(), channels=1, **CALL),
        r"images \[N, 8, 8, 3\] .* other shapes .*number of channels perhaps; vitcnn gives it RGB",
    ),
    "dropout": (
        lambda v: {"module": Trained(drop=0.5), "call": {"scale": 2.0}},
        r'it draws random numbers.* as with call={"train": False}, or give keys',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_users_network_that_does_not_run_is_told_what_to_do(trained, case):
    change, message = REFUSED[case]
    change = change(trained) if callable(change) else change
    if not change.keys() & {"module", "call"}:
        change = {"variables": change}
    fields = {"module": Trained(), "variables": trained, "call": CALL, **change}
    model = vitcnn.Model(preprocess=SMALL, **fields)
    for use in (lambda: model.taps, lambda: model.run(PIXELS), lambda: model.classes):
        with pytest.raises(ValueError, match=f"^Trained does not run on 62 float32.*{message}"):
            use()


def test_random_keys_among_the_variables_are_digested(trained):
    first, same, second = (
        vitcnn.Model(Trained(), {**trained, "rng": {"key": jax.random.key(seed)}}).digest()
        for seed in (0, 0, 1)
    )
    assert first == same != second


def test_random_keys_can_be_given():
    module = Trained(drop=0.5)
    call = {"scale": 2.0, "rngs": {"dropout": jax.random.key(1)}}
    model = vitcnn.Model(module, variables_of(module, **CALL), SMALL, call=call)
    _, taps = model.run(PIXELS, ["conv", "Dropout_0"])
    kept = np.asarray(taps["Dropout_0"]) != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(taps["Dropout_0"], np.where(kept, 2 * taps["conv"], 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"module": Trained}, TypeError, "module is the class Trained: make an instance"),
        ({"module": abs}, TypeError, "expected a flax.linen or flax.nnx module, got a builtins"),
        ({"variables": None}, TypeError, r'variables: expected a mapping such as {"params"'),
        ({"preprocess": 224}, TypeError, "preprocess: expected a vitcnn.Preprocess, got a int"),
        ({"call": ("train",)}, TypeError, "call: expected a mapping"),
        ({"call": {"mutable": True}}, ValueError, "call has 'mutable', which the Model sets"),
    ],
)
def test_a_model_of_something_else_is_refused(trained, fields, error, message):
    with pytest.raises(error, match=message):
        vitcnn.Model(**{"module": Trained(), "variables": trained, **fields})


class Two(nn.Module):
    """Returns logits and features, inside `nn.remat`, of a layer that is called twice."""

    @nn.remat
    @nn.compact
    def __call__(self, images):
        layer = nn.Dense(3, name="layer")
        x = layer(images.mean((1, 2)))
        return nn.Dense(3, name="head")(layer(x)), {"features": x}

    def logits(self, images):
        return self(images)[0]


def test_a_network_that_returns_a_tuple(tmp_path):
    variables = variables_of(Two())
    model = vitcnn.Model(Two(), variables, vitcnn.Preprocess(size=32))
    images = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
    output, taps = model.run(images, "*")
    assert list(taps) == ["layer", "layer/1", "head", "output:0", "output:1:features"]
    np.testing.assert_array_equal(output[0], taps["output:0"])
    np.testing.assert_array_equal(output[1]["features"], taps["layer"])
    with pytest.raises(ValueError, match=r"Two returns a tuple .*logits \[images, classes\]: make"):
        print(model.classes)
    assert vitcnn.Model(Two(), variables, SMALL, call={"method": "logits"}).classes == 3

    config = {"data": {"source": "scenes", "size": 10}, "group": 5, "seed": 3}
    config |= {"models": {}, "analyses": {"cka": {"taps": ("layer*", "output:*")}}}
    given = {"models": {"mine": model}, "progress": False}
    table = vitcnn.analyze(config, tmp_path / "cka", **given)["cka"]
    at = {"layer_x": "mine/layer", "layer_y": "mine/output:1:features"}
    assert float(table.cka.sel(at)) == pytest.approx(1, abs=1e-6)
    config["analyses"] = {"accuracy": {}}
    with pytest.raises(ValueError, match="Two returns a tuple"):
        vitcnn.analyze(config, tmp_path / "accuracy", **given)
    config["analyses"] = {"cka": {"taps": ("*",)}}
    broken = vitcnn.Model(Trained(), variables_of(Trained(), **CALL), SMALL, call={"scale": 1.0})
    with pytest.raises(ValueError, match=r"Trained does not run .* it updates its variables"):
        vitcnn.analyze(config, tmp_path / "broken", models={"b": broken}, progress=False)
    assert not list((tmp_path / "broken").glob("*.nc"))
    with pytest.raises(TypeError, match=r"models\['mine'\] is a Two: make a Model of your network"):
        vitcnn.analyze(config, tmp_path / "module", models={"mine": Two()}, progress=False)


class Layers(nn.Module):
    """Layers in `nn.scan`, as large networks have them."""

    @nn.compact
    def __call__(self, images):
        scan = nn.scan(ScannedLayer, {"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = scan(name="layers")(images.mean((1, 2)), None)
        return nn.Dense(2)(x)


class ScannedLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(3)(x), None


def test_an_analysis_of_what_is_left_out_is_told_why(tmp_path):
    model = vitcnn.Model(Layers(), variables_of(Layers()), vitcnn.Preprocess(size=32))
    config = {"data": {"source": "scenes", "size": 10}, "group": 5, "models": {}}
    config["analyses"] = {"cka": {"taps": ("layers/*",)}}
    message = r"no tap of mine matches 'layers/\*': 'layers/Dense_0' is left out: .* nn.scan"
    with pytest.raises(ValueError, match=message):
        vitcnn.analyze(config, tmp_path, models={"mine": model}, progress=False)


class Maps(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Conv(3, (1, 1))(images)


def test_maps_are_no_logits():
    model = vitcnn.Model(Maps(), variables_of(Maps()), SMALL)
    with pytest.raises(ValueError, match=r"Maps returns an array \[62, 8, 8, 3\] for 62 images"):
        print(model.classes)


class NnxPart(nnx.Module):
    def __init__(self, sows, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.sows = sows

    def __call__(self, x):
        x = nnx.relu(self.linear(x))
        if self.sows:
            self.sow(nnx.Intermediate, "hidden", x)
        return self.drop(x)


class NnxNetwork(nnx.Module):
    def __init__(self, sows=False, norm=False):
        rngs = nnx.Rngs(0)
        self.part = NnxPart(sows, rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs) if norm else None
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, images, scale=1):
        x = self.part(self.part(images.mean((1, 2))))
        x = x if self.norm is None else self.norm(x)
        return scale * self.head(x)


@pytest.mark.parametrize("sows", [False, True])
def test_a_module_of_nnx(sows):
    network = NnxNetwork(sows)
    network.eval()
    model = vitcnn.Model(network, {}, SMALL, call={"scale": 3})
    logits, taps = model.run(PIXELS, "*")
    linear, head = (
        (np.asarray(m.kernel.get_value(), np.float64), np.asarray(m.bias.get_value()))
        for m in (network.part.linear, network.head)
    )
    first = PIXELS.astype(np.float64).mean((1, 2)) @ linear[0] + linear[1]
    second = np.maximum(first, 0) @ linear[0] + linear[1]
    one, two = np.maximum(first, 0), np.maximum(second, 0)
    expected = {"part/linear": first, "part/linear/1": second}
    expected |= {"part/drop": one, "part/drop/1": two, "part": one, "part/1": two}
    expected |= {"head": two @ head[0] + head[1], "logits": 3 * (two @ head[0] + head[1])}
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-5, atol=1e-6)
    if sows:
        expected = {"part/hidden": one, "part/hidden/1": two}
    assert list(taps) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(taps[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert model.classes == 2 and model.parameter_count == 9 + 3 + 6 + 2
    before = model.digest()
    network.head.bias.set_value(network.head.bias.get_value() + 1)
    assert vitcnn.Model(network, {}, SMALL).digest() != before == model.digest()


def test_a_module_of_nnx_needs_a_flax_that_captures(monkeypatch):
    monkeypatch.delattr(nnx, "capture")
    with pytest.raises(ValueError, match=r"flax.nnx need a newer Flax, one .* nnx.capture"):
        vitcnn.Model(NnxNetwork(), {}, SMALL)


@pytest.mark.parametrize("norm", [False, True])
def test_a_module_of_nnx_that_trains_is_refused(norm):
    network = NnxNetwork(norm=norm)
    if norm:
        network.part.eval()
    name = "norm.use_running_average" if norm else "part.drop.deterministic"
    message = rf"^NnxNetwork.{name} is False, for training: call eval\(\) of the network"
    with pytest.raises(ValueError, match=message):
        vitcnn.Model(network, {}, SMALL)
    network.eval()
    with pytest.raises(ValueError, match=r"a module of flax.nnx holds its variables itself"):
        vitcnn.Model(network, {"params": {}}, SMALL)


NNX_TRANSFORMED = {
    "jit": lambda part, x: nnx.jit(lambda part, x: part(x))(part, x),
    "remat": lambda part, x: nnx.remat(lambda part, x: part(x))(part, x),
    "raw jit": lambda part, x: jax.jit(part)(x),
    "cond": lambda part, x: nnx.cond(x.sum() > -1e9, lambda p, x: p(x), lambda p, x: x, part, x),
}


class NnxTransformed(nnx.Module):
    def __init__(self, how):
        self.layer = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
        self.how = how

    def __call__(self, images):
        return self.head(NNX_TRANSFORMED[self.how](self.layer, images.mean((1, 2))))


@pytest.mark.parametrize("how", NNX_TRANSFORMED)
def test_modules_of_nnx_with_transformations(how):
    network = NnxTransformed(how)
    model = vitcnn.Model(network, {}, SMALL)
    if how in ("jit", "remat"):
        _, taps = model.run(PIXELS, "*")
        expected = network.layer(PIXELS.mean((1, 2)))
        np.testing.assert_allclose(taps["layer"], expected, rtol=1e-5, atol=1e-6)
    else:
        with pytest.warns(UserWarning, match="left out of the taps: "):
            taps = model.taps
        assert "layer" not in taps
        np.testing.assert_allclose(model.run(PIXELS)[0], network(PIXELS), rtol=1e-5, atol=1e-6)
