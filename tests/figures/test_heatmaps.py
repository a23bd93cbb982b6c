"""Figures are read back: their arrays, the pixels they render to, and the boxes of their texts."""

import itertools
import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from fabricated import accuracy, cka, pair, resnet_layers, vit_layers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import vitcnn
from vitcnn import figures
from vitcnn.analyses import accuracy as accuracy_
from vitcnn.analyses import cka as cka_


def big():
    models = {
        "vit_b32": ("vit", "B/32", vit_layers(12)),
        "resnet50": ("resnet", "R50x1", resnet_layers((3, 4, 6, 3))),
    }
    return cka(models, low=-0.1, dead=["vit_b32/block05/mlp"])


def class_token(result):
    result.cka.attrs["long_name"] = "unbiased CKA, RBF kernel, class token"
    return result


def three():
    own = [f"Dense_{i}/__call__" for i in range(4)]
    models = {
        "huge": ("vit", "H/14", vit_layers(32)),
        "deep": ("resnet", "R152x2", resnet_layers((3, 8, 36, 3))),
        "a_name_that_is_longer_than_its_place": ("", "", own),
    }
    return cka(models)


def rendered(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()), canvas.get_renderer()


def pixel(figure, axes, x, y):
    """Returns the colour in [0, 1] in which a figure shows (layer x, layer y) of a heatmap."""
    image, _ = rendered(figure)
    column, row = axes.transData.transform((x, y))
    return image[image.shape[0] - 1 - round(row), round(column), :3] / 255


def test_heatmap_has_the_numbers_of_the_result_with_the_input_at_the_lower_left():
    result = pair()
    figure = cka_.draw([result])
    names = [("vit", "vit"), ("resnet", "resnet"), ("resnet", "vit")]  # (x, y), a ViT is y
    for axes, (x, y) in zip(figure.axes, names, strict=False):
        (image,) = axes.images
        drawn = image.get_array()
        xs = [str(n) for n in result.layer_x.values if n.startswith(f"{x}/")]
        ys = [str(n) for n in result.layer_y.values if n.startswith(f"{y}/")]
        assert drawn.shape == (len(ys), len(xs))
        for row, column in [(0, 0), (0, 5), (7, 2), (len(ys) - 1, 0), (3, len(xs) - 1)]:
            value = float(result.cka.sel(layer_x=xs[column], layer_y=ys[row]))
            assert drawn[row, column] == value
            colour = matplotlib.colormaps["magma"](value)[:3]
            np.testing.assert_allclose(pixel(figure, axes, column, row), colour, atol=0.01)
        box = axes.transData.transform([(0, 0), (len(xs) - 1, len(ys) - 1)])
        assert (box[1] > box[0]).all()  # depth grows to the right and upwards
        assert (axes.get_xlabel(), axes.get_ylabel()) == (f"{x} layers", f"{y} layers")
        side = axes.get_window_extent()
        assert side.width == pytest.approx(side.height)


def test_titles_come_from_the_provenance():
    figure = figures.heatmaps([pair(images=10_240)])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["vit", "resnet", "vit and resnet", "CKA"]
    lines = [text.get_text() for text in figure.axes[2].texts]
    assert sorted(lines) == ["images.npz, 10,240 images", "vit tiny, resnet small"]


def test_all_panels_share_one_scale_and_negative_values_are_announced():
    plain, negative = figures.heatmaps([pair()]), figures.heatmaps([pair(low=-0.5)])
    for figure in (plain, negative):
        assert {image.get_clim() for axes in figure.axes for image in axes.images} == {(0, 1)}
    assert plain.axes[0].images[0].colorbar is None and not any(t.get_text() for t in plain.texts)
    assert plain.axes[2].images[0].colorbar.extend == "neither"
    assert negative.axes[2].images[0].colorbar.extend == "min"
    lowest = float(pair(low=-0.5).cka.min())
    assert f"Lowest CKA {lowest:.3f}" in negative.texts[0].get_text()


def test_undefined_layers_are_grey_and_noted():
    figure = figures.heatmaps([pair(dead=["vit/block01/attn"])])
    at = vit_layers(3).index("block01/attn")
    for x, y in [(at, 3), (3, at), (at, at)]:
        red, green, blue = pixel(figure, figure.axes[0], x, y)
        assert red == green == blue and 0.5 < red < 0.95
    assert "undefined" in figure.texts[0].get_text()
    assert np.isnan(figures.panels(pair(dead=["vit/block01/attn"]))[0].values[at]).all()


def test_a_dataset_of_the_cka_function_can_be_drawn():
    rng = np.random.default_rng(0)
    xs = {f"x{i}": rng.standard_normal((16, 5)) for i in range(3)}
    ys = {f"y{i}": rng.standard_normal((16, 5)) for i in range(2)}
    table = vitcnn.cka(xs, ys, group=8)
    (panel,) = figures.panels(table)
    assert panel.x_layers == ("x0", "x1", "x2") and panel.y_layers == ("y0", "y1")
    assert panel.values[1, 2] == float(table.cka.sel(layer_x="x2", layer_y="y1"))
    np.testing.assert_array_equal(
        figures.heatmaps([table]).axes[0].images[0].get_array(), table.cka.values.T
    )


@pytest.mark.parametrize(
    ("layers", "gap", "positions", "labels", "edges"),
    [
        (  # 2 blocks of 6 behind the embedding
            vit_layers(2),
            2.0,
            [0, 3.5, 9.5, 13, 15],
            ["embed", "block 0", "block 1", "norm", "logits"],
            [0.5, 6.5, 12.5],
        ),
        (  # block 0 would touch the embedding, pooled the logits
            vit_layers(12),
            7.0,
            [3.5, 15.5, 27.5, 39.5, 51.5, 63.5, 75],
            [*(f"block {i}" for i in (0, 2, 4, 6, 8, 10)), "logits"],
            np.arange(13) * 6 + 0.5,
        ),
        (
            resnet_layers((3, 4)),
            4.0,
            [1, 14, 40.5, 57],
            ["stem", "stage 1", "stage 2", "logits"],
            [2.5, 25.5, 55.5],
        ),
        (  # only block outputs; a name that all share is left out
            [f"net/block{i:02d}/out" for i in range(10)],
            2.5,
            [0, 3, 6, 9],
            ["block 0", "block 3", "block 6", "block 9"],
            np.arange(11) - 0.5,
        ),
        (["logits"], 0.1, [0], ["logits"], []),
        (["a", "b", "c"], 1.5, [0, 2], ["a", "c"], []),
    ],
)
def test_ticks(layers, gap, positions, labels, edges):
    found = figures.ticks(layers, gap)
    np.testing.assert_array_equal(found[0], positions)
    assert found[1] == labels
    np.testing.assert_array_equal(found[2], edges)


def texts(figure):
    _, renderer = rendered(figure)
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in shown]
    return [(text, box) for text, box in boxes if box.width > 0]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.heatmaps([pair()]),
        lambda: figures.heatmaps([big()]),
        lambda: figures.heatmaps([class_token(big())]),
        lambda: figures.heatmaps([three()]),
        lambda: figures.heatmaps([cka({"one": ("vit", "B/32", vit_layers(12))}, low=-0.1)]),
        lambda: figures.correspondence([pair()]),
        lambda: figures.correspondence([big()]),
        lambda: figures.correspondence([class_token(big())]),
        lambda: figures.correspondence([three()]),
        lambda: accuracy_.draw([accuracy("vit", "vit", 0.719, 0.005)]),
        lambda: accuracy_.draw(
            [accuracy(f"model_number_{i}_of_this", "resnet", 0.7 + i / 20, 0.01) for i in range(5)]
        ),
    ],
    ids=["h2", "h201", "h201c", "h3", "h1", "c2", "c201", "c201c", "c3", "a1", "a5"],
)
def test_no_text_covers_another_or_leaves_the_page(draw):
    figure = draw()
    found = texts(figure)
    assert len(found) > 5
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    for (a, first), (b, second) in itertools.combinations(found, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        up = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= 0.5 or up <= 0.5, f"{a!r} covers {b!r}"


def test_correspondence_draws_match_depth_and_its_interval():
    result = pair()
    figure = figures.correspondence([result])
    upper, lower, _, _ = [axes for axes in figure.axes if axes.lines]
    assert upper.get_title(loc="left") == "vit \u2192 resnet"
    mine = result.sel(model_y="resnet").isel(layer_x=result.model_of_x.values == "vit")
    for axes, name in ((upper, "match_depth"), (lower, "match_cka")):
        curve = axes.lines[-1]
        np.testing.assert_array_equal(curve.get_xdata(), np.arange(22))
        np.testing.assert_array_equal(curve.get_ydata(), mine[name].values)
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        top = np.clip(mine[name] + 1.96 * mine[f"{name}_standard_error"], 0, 1).values
        assert np.isclose(band[:, None], top).any(axis=0).all()
    diagonal = upper.lines[0].get_xydata()
    np.testing.assert_array_equal(diagonal, [[0, 0], [21, 1]])
    with pytest.raises(ValueError, match="two models"):
        figures.correspondence([cka({"one": ("vit", "B/32", vit_layers(1))})])


def test_accuracy_shows_95_percent_intervals():
    results = [accuracy("vit", "vit", 0.719, 0.005), accuracy("net", "resnet", 0.917, 0.003)]
    figure = accuracy_.draw(results)
    (dots, _, (bars,)) = figure.axes[0].containers[0]
    np.testing.assert_allclose(dots.get_xdata(), [71.9, 91.7])
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, [[71.9 - 0.98, 71.9 + 0.98], [91.7 - 0.588, 91.7 + 0.588]])
    assert [t.get_text() for t in figure.axes[0].texts] == [
        "71.90 \u00b1 0.98",
        "91.70 \u00b1 0.59",
    ]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "vit\nvit tiny",
        "net\nresnet small",
    ]


def test_one_group_of_images_has_numbers_without_intervals():
    figure = accuracy_.draw([accuracy("vit", "vit", 0.719, np.nan)])
    assert figure.axes[0].texts[0].get_text().startswith("71.9")
    result = pair()
    for name in [n for n in result.data_vars if n.endswith("_standard_error")]:
        result[name] = result[name] * np.nan
    rendered(figures.correspondence([result]))


def test_drawing_changes_no_setting_and_ignores_those_of_the_user(tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        figure = figures.heatmaps([pair()])
        figures.save(figure, tmp_path / "user.png")
        assert dict(matplotlib.rcParams) == before
    figures.save(figures.heatmaps([pair()]), tmp_path / "plain.png")
    assert (tmp_path / "user.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_save_is_whole_and_the_same_each_time(tmp_path, kind):
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind]
    paths = [tmp_path / f"{i}.{kind}" for i in range(2)]
    for path in paths:
        figures.save(figures.heatmaps([pair()]), path)
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(start)
    if kind != "svg":  # its ids are random
        assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"0.{kind}", f"1.{kind}"]


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, vitcnn.figures; print(any('matplotlib' == m for m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_notebook_shows_a_figure_without_pyplot():
    assert figures.heatmaps([pair()])._repr_png_().startswith(b"\x89PNG")


def test_data_and_models_are_described():
    known = json.loads(pair(images=500).attrs["provenance"])
    assert figures.describe_images(known) == "images.npz, 500 images"
    known["data"] = {"source": "tfds", "name": "cifar10/3.0.2", "split": "test"}
    known["fields"]["repeats"] = 20
    assert figures.describe_images(known) == "cifar10/3.0.2 test, 500 images \u00d7 20"
    known["models"]["vit"]["weights"] = {"format": "random", "seed": 0}
    assert figures.describe_model(known, "vit") == "vit tiny (random weights)"
    assert figures.describe_model({}, "vit") == "" and figures.describe_images({}) == ""


@pytest.mark.parametrize(
    ("long_name", "said"),
    [
        ("unbiased linear CKA", ()),
        ("unbiased linear CKA, class token", ("class token",)),
        ("unbiased CKA, RBF kernel", ("RBF kernel",)),
        ("unbiased CKA, RBF kernel, image positions", ("RBF kernel, image positions",)),
    ],
)
def test_figures_say_which_cka_they_show(long_name, said):
    result = pair()
    result.cka.attrs["long_name"] = long_name
    for panel in figures.panels(result):
        assert panel.subtitle[1:-1] == said and panel.subtitle[-1] == "images.npz, 640 images"
    for figure in (figures.heatmaps([result]), figures.correspondence([result])):
        lines = {t.get_text() for axes in figure.axes for t in axes.texts}
        assert set(said) <= lines and ("class token" in lines) == ("class token" in said)
