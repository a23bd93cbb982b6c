"""The public Model: runs, taps in order, loads, and says what is wrong."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
