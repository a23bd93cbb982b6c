"""Skip ratio against NumPy on the taps of a ViT and of a ResNet, and where the answer is known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import analyses, data
from vitcnn.analyses import skip_ratio
from vitcnn.numerics.exact import to_host
from vitcnn.taps import TapInfo


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
    models, source, results = measured
    result = results["skip_ratio.v"]
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
            np.testing.assert_allclose(row[f"{name}_class"], expected[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                row[f"{name}_spatial"], expected[1:].mean(), rtol=1e-5, atol=1e-6
            )


def test_resnet_units_use_the_projected_shortcut(measured):
    models, source, results = measured
    result = results["skip_ratio.r"]
    assert len(result.branch) == 4 and np.isnan(result.ratio_class).all()
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
    models, source, results = measured
    again = analyze({"v": models["v"]}, source, tmp_path, group=5)["skip_ratio.v"]
    np.testing.assert_allclose(again.ratio_token, results["skip_ratio.v"].ratio_token, rtol=1e-5)


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
    with pytest.warns(UserWarning, match=r"sum is zero.* left out: block00/mlp \(1\)"):
        result = analyze({"m": model}, data.load("scenes", size=12), tmp_path, 4)["skip_ratio.m"]
    assert np.isnan(result.cosine_output_spatial)
    np.testing.assert_allclose(result.ratio_spatial, 1, rtol=1e-5)
    np.testing.assert_allclose(result.cosine_branch_spatial, -1, rtol=1e-5)


def of_arrays(z, f, groups=1, **known):
    """Returns the Result of a skip z and a branch f, in float64."""
    info = TapInfo("block00/mlp", "mlp", z.shape[1:], skip="block00/in", **known)
    sums = []
    for part in np.split(np.arange(len(z)), groups):
        taps = {"block00/in": jnp.asarray(z[part]), info.name: jnp.asarray(f[part])}
        view = analyses.View(np.zeros((len(part), 1)), taps, None, {info.name: info}, None)
        group = analyses.Group(None, None, {"m": view})
        sums.append(to_host(skip_ratio.measure(group, None, {})))
    config = SimpleNamespace(infos=(info,))
    return skip_ratio.finalize(jax.tree.map(lambda *a: sum(a), *sums), config).isel(branch=0)


def drawn(tokens, images=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(images, tokens, 5)).astype(np.float32) for _ in range(2))


def test_a_zero_vector_is_left_out_of_the_mean_of_its_token():
    z, f = drawn(4)
    z[1, 0] = f[2, 3] = f[:, 1] = 0
    with pytest.warns(UserWarning, match=r"left out: block00/mlp \(0\.33\)"):  # 8 of 24
        result = of_arrays(z, f, 2, prefix_tokens=1, class_token=True)
    known = (z != 0).any(-1) & (f != 0).any(-1)
    for name in skip_ratio.STATISTICS:
        single = np.full(known.shape, np.nan)
        for i, k in np.argwhere(known):
            single[i, k] = oracle(z[i, k][None, None], f[i, k][None, None])[name][0]
        expected = [
            single[known[:, k], k].mean() if known[:, k].any() else np.nan for k in range(4)
        ]
        np.testing.assert_allclose(result[f"{name}_token"], expected, rtol=1e-5)
        np.testing.assert_allclose(result[f"{name}_class"], expected[0], rtol=1e-5)
        np.testing.assert_allclose(
            result[f"{name}_spatial"], single[:, 1:][known[:, 1:]].mean(), rtol=1e-5
        )
    z[0, 2] = np.nan  # shows, and is not left out
    with pytest.warns(UserWarning, match="left out"):
        broken = of_arrays(z, f, prefix_tokens=1, class_token=True)
    assert np.isnan(broken.ratio_token[2]) and np.isnan(broken.ratio_spatial)


def test_registers_are_neither_class_token_nor_positions():
    z, f = drawn(6)
    expected = oracle(z, f)["ratio"]
    result = of_arrays(z, f, prefix_tokens=3, class_token=True)
    np.testing.assert_allclose(result.ratio_class, expected[0], rtol=1e-5)
    np.testing.assert_allclose(result.ratio_spatial, expected[3:].mean(), rtol=1e-5)
    assert result.attrs["prefix_tokens"] == 3
    result = of_arrays(z, f, prefix_tokens=2)  # registers alone
    assert np.isnan(result.ratio_class) and np.isnan(result.phases)
    np.testing.assert_allclose(result.ratio_spatial, expected[2:].mean(), rtol=1e-5)


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
    np.testing.assert_allclose(axes.lines[1].get_ydata(), attention.ratio_class)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [0, 1])
    titles = [axes.get_xlabel() for axes in figure.axes]
    assert titles == ["block", "residual unit, from 1"]


def test_the_cosine_is_drawn_by_depth(measured):
    results = measured[2]
    figure = skip_ratio.draw_cosine(list(results.values()))
    assert {axes.get_ylabel() for axes in figure.axes} == {"cosine of skip and skip + branch"}
    result = results["skip_ratio.v"]
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}
    rows = result.isel(branch=result.role.values == "mlp")
    np.testing.assert_allclose(lines["mlp, class token"], rows.cosine_output_class)
    np.testing.assert_allclose(lines["mlp, spatial"], rows.cosine_output_spatial)


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
