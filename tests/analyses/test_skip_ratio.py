"""Skip ratio against NumPy on the taps of a ViT and of a ResNet, and where the answer is known."""

import jax
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import data
from vitcnn.analyses import skip_ratio


def analyze(models, source, workdir, group=8):
    config = {"analyses": {"skip_ratio": {}}, "group": group}
    return vitcnn.analyze(config, workdir, models=models, source=source, progress=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    models = {
        "v": randomised(vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)),
        "r": randomised(vitcnn.load("resnet", "mini", units=(2, 1, 1))),
    }
    source = data.load("scenes", size=20)
    return models, source, analyze(models, source, tmp_path_factory.mktemp("skip"))


def oracle(z, f):
    z, f = (np.asarray(a, np.float64).reshape(len(a), -1, a.shape[-1]) for a in (z, f))
    size = lambda a: np.sqrt((a**2).sum(-1))  # noqa: E731
    return {
        "ratio": (size(z) / size(f)).mean(0),
        "cosine_output": ((z * (z + f)).sum(-1) / size(z) / size(z + f)).mean(0),
        "cosine_branch": ((z * f).sum(-1) / size(z) / size(f)).mean(0),
    }


def test_vit_branches_equal_numpy(measured):
    models, source, found = measured
    result = found["skip_ratio.v"]
    assert list(result.branch.values) == [
        "block00/attn",
        "block00/mlp",
        "block01/attn",
        "block01/mlp",
    ]
    images = models["v"].preprocess([source[i]["image"] for i in range(20)])
    _, taps = models["v"].run(images, ["block*/in", "block*/mid", "block*/attn", "block*/mlp"])
    for branch, skip in (("block00/attn", "block00/in"), ("block01/mlp", "block01/mid")):
        for name, expected in oracle(taps[skip], taps[branch]).items():
            row = result.sel(branch=branch)
            np.testing.assert_allclose(row[f"{name}_token"], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(row[f"{name}_prefix"], expected[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                row[f"{name}_spatial"], expected[1:].mean(), rtol=1e-5, atol=1e-6
            )


def test_resnet_units_use_the_projected_shortcut(measured):
    models, source, found = measured
    result = found["skip_ratio.r"]
    assert len(result.branch) == 4 and np.isnan(result.ratio_prefix).all()
    images = models["r"].preprocess([source[i]["image"] for i in range(20)])
    branch, skip = "stage2/unit01/norm2", "stage2/unit01/shortcut_norm"
    _, taps = models["r"].run(images, [branch, skip])
    expected = oracle(taps[skip], taps[branch])
    for name, values in expected.items():
        np.testing.assert_allclose(
            result.sel(branch=branch)[f"{name}_spatial"], values.mean(), rtol=1e-5
        )
    plain = "stage1/unit02/norm2"
    _, taps = models["r"].run(images, [plain, "stage1/unit02/in"])
    value = oracle(taps["stage1/unit02/in"], taps[plain])["ratio"].mean()
    np.testing.assert_allclose(result.sel(branch=plain).ratio_spatial, value, rtol=1e-5)


def test_group_size_does_not_matter(measured, tmp_path):
    models, source, found = measured
    again = analyze({"v": models["v"]}, source, tmp_path, group=5)["skip_ratio.v"]
    np.testing.assert_allclose(again.ratio_token, found["skip_ratio.v"].ratio_token, rtol=1e-5)


def test_a_branch_that_repeats_its_input_has_ratio_one(tmp_path):
    import flax.linen as nn

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.Conv(8, (4, 4), strides=4)(images)
            x = vitcnn.tap(self, "block00/in", x, grid=x.shape[1:3])
            y = vitcnn.tap(
                self, "block00/mlp", -x, grid=x.shape[1:3], role="mlp", skip="block00/in"
            )
            return (x + 2 * y).mean((1, 2))

    module = Twice()
    variables = module.init(jax.random.key(0), np.zeros((1, 32, 32, 3)))
    model = vitcnn.Model(module, variables, vitcnn.Preprocess(size=32))
    result = analyze({"m": model}, data.load("scenes", size=12), tmp_path, 4)["skip_ratio.m"]
    np.testing.assert_allclose(result.ratio_spatial, 1, rtol=1e-5)
    np.testing.assert_allclose(result.cosine_branch_spatial, -1, rtol=1e-5)


def test_curves_show_the_numbers(measured):
    figure = skip_ratio.draw(list(measured[2].values()))
    vit = measured[2]["skip_ratio.v"]
    axes = next(a for a in figure.axes if len(a.lines) == 4)
    labels = [line.get_label() for line in axes.lines]
    assert labels == [
        "attention, spatial",
        "attention, class token",
        "mlp, spatial",
        "mlp, class token",
    ]
    attention = vit.isel(branch=vit.role.values == "attention")
    np.testing.assert_allclose(axes.lines[1].get_ydata(), attention.ratio_prefix)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [0, 1])
    titles = [axes.get_xlabel() for axes in figure.axes]
    assert titles == ["block", "residual unit, from 1"]


def test_tokens_are_drawn_with_the_class_token_apart(measured):
    vit, resnet = (measured[2][f"skip_ratio.{name}"] for name in "vr")
    figure = skip_ratio.draw_tokens([vit, resnet])
    drawn = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(drawn) == 4, "attention and mlp, image positions and the class token"
    for k, role in enumerate(("attention", "mlp")):
        values = vit.ratio_token.isel(branch=vit.role.values == role).values.T
        spatial, prefix = drawn[2 * k : 2 * k + 2]
        np.testing.assert_allclose(spatial.get_array(), values[1:])
        np.testing.assert_allclose(prefix.get_array(), values[:1])
        assert spatial.get_extent() == [-0.5, 1.5, 64.5, 0.5]
        assert spatial.norm is prefix.norm
    labels = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    assert labels.count("class token") == 1
    assert skip_ratio.draw_tokens([resnet]) is None
