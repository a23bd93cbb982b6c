"""Localization against NumPy on a ViT and a ResNet, and where the answer is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised
from oracles import minibatch_cka

import vitcnn
from vitcnn import analyses, data
from vitcnn.analyses import localization
from vitcnn.numerics.exact import to_host
from vitcnn.taps import TapInfo

GROUP = 9  # 20 images are groups of 9, 9 and 2; the last is too small
FIELDS = {"max_positions": 64}


def analyze(models, workdir, fields=FIELDS, group=GROUP, size=20):
    config = {"analyses": {"localization": fields}, "group": group}
    source = data.load("scenes", size=size)
    return vitcnn.analyze(config, workdir, models=models, source=source, progress=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    models = {
        "v": randomised(vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)),
        "r": randomised(vitcnn.load("resnet", "mini", units=(1, 1, 1))),
    }
    with pytest.warns(UserWarning, match="the last 2 of 20 images are left out"):
        results = analyze(models, tmp_path_factory.mktemp("localization"))
    return models, results


def ordered(model, size=20):
    """Returns the images of a run in their order, as the model sees them, normalised."""
    source = data.load("scenes", size=size)
    order = data.order(size, size, seed=0, repeat=0)
    return model.preprocess([source[int(i)]["image"] for i in order])


def cell(x, row, column, rows, columns):
    """Returns the pixels, or the features, of one cell of a map."""
    height, width = x.shape[1] // rows, x.shape[2] // columns
    return x[:, row * height : (row + 1) * height, column * width : (column + 1) * width]


def test_a_vit_equals_numpy(measured):
    models, results = measured
    result = results["localization.v"]
    assert list(result.layer.values) == ["block00/out", "block01/out"]
    assert result.cka_8x8.shape == (2, 8, 8, 8, 8) and set(result.grid.values) == {"8x8"}
    images = ordered(models["v"])
    _, taps = models["v"].run(images, "block*/out")
    pairs = [((0, 0), (0, 0)), ((2, 5), (2, 5)), ((7, 1), (3, 6)), ((3, 4), (0, 7))]
    for layer, tap in taps.items():
        tokens = np.asarray(tap)[:, 1:].reshape(20, 8, 8, -1)
        for token, patch in pairs:
            x, y = cell(tokens, *token, 8, 8), cell(images, *patch, 8, 8)
            expected = minibatch_cka(x, y, GROUP)
            value = localization.cka_of(result, layer).values[token + patch]
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_resnet_equals_numpy_in_cells_of_its_fine_grid(measured):
    models, results = measured
    result = results["localization.r"]
    stages = [f"stage{i}/unit01/out" for i in (1, 2, 3)]
    assert list(result.layer.values) == stages
    assert list(result.grid.values) == ["8x8", "8x8", "4x4"]
    assert list(result.cell.values) == [2, 1, 1]  # stage 1 has 16 x 16 positions
    assert list(result.layer_8x8.values) == stages[:2]
    images = ordered(models["r"])
    _, taps = models["r"].run(images, "stage*/out")
    for layer in stages[:2]:
        for token, patch in [((1, 2), (1, 2)), ((6, 0), (0, 6))]:
            x, y = cell(np.asarray(taps[layer]), *token, 8, 8), cell(images, *patch, 8, 8)
            expected = minibatch_cka(x, y, GROUP)
            value = localization.cka_of(result, layer).values[token + patch]
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_what_is_read_off_a_map_equals_numpy(measured):
    """All pairs of the 4 x 4 grid, patches of 8 px, and their numbers one token at a time."""
    models, results = measured
    result = results["localization.r"]
    images = ordered(models["r"])
    tap = np.asarray(models["r"].run(images, "stage3/unit01/out")[1]["stage3/unit01/out"])
    places = [(row, column) for row in range(4) for column in range(4)]
    maps = np.array(
        [
            [minibatch_cka(cell(tap, *t, 4, 4), cell(images, *p, 4, 4), GROUP) for p in places]
            for t in places
        ]
    )
    row = result.sel(layer="stage3/unit01/out")
    values = localization.cka_of(result, "stage3/unit01/out").values.reshape(16, 16)
    np.testing.assert_allclose(values, maps, rtol=1e-5, atol=1e-6)
    same, away, own, peak, mean = [], [], [], [], []
    for i, place in enumerate(places):
        best = max(range(16), key=lambda j, i=i: maps[i, j])
        same.append(best == i)
        away.append(8 * np.hypot(*np.subtract(place, places[best])))
        own.append(maps[i, i])
        peak.append(maps[i, best])
        mean.append(sum(maps[i]) / 16)
    assert float(row.own_rate) == np.mean(same)
    assert float(row.own_rate_chance) == 1 / 16
    assert float(row.peak_distance) == pytest.approx(np.mean(away), rel=1e-6)
    assert float(row.own) == pytest.approx(np.mean(own), rel=1e-5)
    assert float(row.contrast) == pytest.approx(np.mean(np.subtract(peak, mean)), rel=1e-5)
    assert float(row.own_contrast) == pytest.approx(np.mean(np.subtract(own, mean)), rel=1e-5)
    assert "own_rate_chance_standard_error" not in result
    assert np.isfinite(result.contrast_standard_error).all()


class Copy(nn.Module):
    """Tokens are the patches themselves, rotated in their features, behind two prefix tokens."""

    @nn.compact
    def __call__(self, images):
        n, height, width, channels = images.shape
        rows, columns, side = height // 8, width // 8, 8
        x = images.reshape(n, rows, side, columns, side, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, rows * columns, -1)[..., ::-1] * -3.0 + 2.0
        x = jnp.pad(x, ((0, 0), (2, 0), (0, 0)), constant_values=1)
        x = vitcnn.tap(self, "block00/out", x, grid=(rows, columns), prefix_tokens=2)
        return x.mean(1)


def test_a_network_that_copies_its_patches_is_fully_localized(tmp_path):
    module = Copy()
    variables = module.init(jax.random.key(0), np.zeros((1, 24, 40, 3)))
    model = vitcnn.Model(module, variables, vitcnn.Preprocess(size=(24, 40)))
    result = analyze({"c": model}, tmp_path, {}, group=12, size=24)["localization.c"]
    assert result.cka_3x5.shape == (1, 3, 5, 3, 5)
    assert float(result.own_rate[0]) == 1
    assert float(result.own[0]) == pytest.approx(1, abs=1e-5)
    assert float(result.peak_distance[0]) == 0
    np.testing.assert_array_equal(result.contrast, result.own_contrast)


def of_arrays(image, tap, info, groups=2, **fields):
    """Runs measure and finalize on ready arrays, in groups of equal size."""
    settings = localization.Settings(**fields)
    config = analyses.Config(settings, (("m", info.name),), (info,))
    total, measure = None, jax.jit(lambda group: localization.measure(group, config, {}))
    for x, t in zip(np.split(image, groups), np.split(tap, groups), strict=True):
        view = analyses.View(jnp.asarray(x), {info.name: t}, None, {info.name: info}, None)
        group = analyses.Group(None, None, {"m": view})
        part = to_host(measure(group))
        total = part if total is None else jax.tree.map(np.add, total, part)
    return localization.finalize(total, config)


jax.tree_util.register_dataclass(analyses.Group, ["label", "index", "models", "cues"], [])
jax.tree_util.register_dataclass(
    analyses.View, ["image", "taps", "logits", "boxes"], ["info", "forward"], ["cache"]
)


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_positions_that_do_not_vary_are_named_and_do_not_count():
    """A black corner of the images, and a token that is the same for all of them."""
    image = noise(0, 16, 12, 12, 3)
    image[:, :4, 8:] = 0
    tap = image.reshape(16, 3, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(16, 3, 3, 48).copy()
    tap[:, 0, 2] = noise(1, 16, 48)  # the token at the black corner is alive
    tap[:, 2, 0] = 7.3
    with pytest.warns(UserWarning) as warned:
        result = of_arrays(image, tap, TapInfo("a", "", tap.shape[1:], (3, 3)))
    texts = [str(w.message) for w in warned]
    assert len(texts) == 2
    assert "patches of the 3x3 grid that do not vary" in texts[0] and "(0, 2)" in texts[0]
    assert "tokens of a that do not vary" in texts[1] and "(2, 0)" in texts[1]
    cka = localization.cka_of(result, "a").values
    dead = np.zeros((3, 3, 3, 3), bool)
    dead[:, :, 0, 2] = dead[2, 0] = True
    np.testing.assert_array_equal(np.isnan(cka), dead)
    assert float(result.own_rate[0]) == 1 and float(result.own[0]) == pytest.approx(1, abs=1e-5)
    live = [i for i in range(9) if i not in (2, 6)]
    flat = cka.reshape(9, 9)
    expected = np.mean(
        [flat[i, i] - np.mean([flat[i, j] for j in range(9) if j != 2]) for i in live]
    )
    assert float(result.contrast[0]) == pytest.approx(expected, rel=1e-6)


def test_scale_shift_and_slices_do_not_matter(monkeypatch):
    image, tap = noise(0, 16, 8, 12, 3), noise(1, 16, 6, 5)
    info = TapInfo("a", grid=(2, 3), layout="map")
    plain = of_arrays(image, tap, info)
    scaled = of_arrays(image, 1e-15 * tap, info)
    np.testing.assert_allclose(scaled.cka_2x3, plain.cka_2x3, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(localization, "SLICE", 4 * 8**2)  # four positions at a time, then two
    sliced = of_arrays(image, tap + 100, info)
    np.testing.assert_allclose(sliced.cka_2x3, plain.cka_2x3, atol=1e-4)
    x, y = tap[:, 4], image[:, 4:, :4]
    expected = minibatch_cka(x, y, 8)
    assert float(plain.cka_2x3[0, 1, 1, 1, 0]) == pytest.approx(expected, rel=1e-5)


def test_a_dead_layer_is_nan_throughout():
    image, tap = noise(0, 8, 8, 8, 3), np.ones((8, 2, 2, 5), np.float32)
    with pytest.warns(UserWarning, match="tokens of a that do not vary"):
        result = of_arrays(image, tap, TapInfo("a", "", tap.shape[1:], (2, 2)), groups=1)
    for name in ("own_rate", "peak_distance", "own", "contrast", "own_contrast", "cka_2x2"):
        assert np.isnan(result[name]).all(), name


def test_a_tap_that_is_no_map_of_its_grid_is_named():
    info = TapInfo("a", "", (10, 4), (3, 3), 2)
    with pytest.raises(ValueError, match=r"a is \[10, 4\] .* its grid, \(3, 3\).* 2 prefix tokens"):
        of_arrays(noise(0, 8, 12, 12, 3), noise(1, 8, 10, 4), info)


@pytest.mark.parametrize(
    ("shape", "info", "message"),
    [
        (
            (10, 12),
            TapInfo("a", grid=(3, 3)),
            r"a of m has 3 x 3 .* 10 x 12 px.*models\.m\.image_s",
        ),
        ((12, 12), TapInfo("a"), "a has no features at positions.*taps"),
        ((12, 12), TapInfo("a", "attention_weights", (), (3, 3)), "a has no features at positions"),
        (
            (34, 34),
            TapInfo("a", grid=(17, 17)),
            "a has a grid of 17 x 17 .* 2 to max_positions = 256 square cells; ra",
        ),
        ((12, 12), TapInfo("a", grid=(1, 1)), "a has a grid of 1 x 1"),
    ],
)
def test_what_does_not_fit_is_named(shape, info, message):
    rows, columns = info.grid or (1, 1)
    with pytest.raises(ValueError, match=message):
        of_arrays(noise(0, 8, *shape, 3), noise(1, 8, rows, columns, 4), info)


def test_the_figures_show_the_numbers(measured):
    results = list(measured[1].values())
    figure = localization.draw(results)
    panels = [
        axes for axes in figure.axes if axes.images and axes.get_title(loc="left")[:5] == "token"
    ]
    assert [axes.get_title(loc="left") for axes in panels] == [
        *(f"token {place}" for place in ((0, 0), (2, 1), (5, 2), (5, 5))),
        *(f"token {place}" for place in ((0, 0), (1, 0), (2, 1), (2, 2))),
    ]
    for result, axes, place in [(results[0], panels[2], (5, 2)), (results[1], panels[7], (2, 2))]:
        expected = localization.cka_of(result, result.layer.values[-1])[place]
        np.testing.assert_array_equal(axes.images[0].get_array(), expected)
        corners = {tuple(patch.get_xy()) for patch in axes.patches}
        assert (place[1] - 0.5, place[0] - 0.5) in corners
    curves = localization.draw_curves(results)
    lines = {line.get_label(): line.get_ydata() for line in curves.axes[1].lines}
    np.testing.assert_array_equal(lines["tokens that match their patch"], results[1].own_rate)
    np.testing.assert_array_equal(lines["highest minus mean CKA"], results[1].contrast)
