"""Curves and token heatmaps: what is drawn, and that every text has its place."""

import itertools
import json

import numpy as np
import pytest
import xarray
from fabricated import provenance
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from vitcnn import figures


def result(name="vit_b16"):
    known = provenance("any", {name: ("vit", "B/16")})
    return xarray.Dataset().assign_attrs(provenance=json.dumps(known))


def curve(x, shift=0.0):
    x = np.asarray(x, float)
    return x, np.sin(x) + shift, np.full(len(x), 0.05)


@pytest.mark.parametrize(
    ("x", "whole"), [([1, 2, 3], True), ([0, 1], True), ([0, 0.5, 1], False), ([1.5, 3], False)]
)
def test_ticks_are_whole_where_the_numbers_are(x, whole):
    figure = figures.curves([result()], [{"a": curve([1, 2]), "b": curve(x)}], "x", "y")
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert len(ticks) > 1 and all(tick == int(tick) for tick in ticks) == whole


def test_bands_are_95_percent_and_gaps_stay_gaps():
    x, y, error = curve([0, 1, 2, 3])
    y[2] = np.nan
    axes = figures.curves([result()], [{"a": (x, y, error)}], "x", "y").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), y)
    ends = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    for sign in (-1, 1):
        assert np.isclose(ends, [1, y[1] + sign * 1.96 * 0.05]).all(axis=1).any()
    assert not (ends[:, 0] == 2).any()


def test_one_name_has_one_look_and_two_dozen_names_have_two_dozen():
    names = [f"block {i}" for i in range(24)]
    panels = [{n: curve([0, 0.5], i) for i, n in enumerate(names)}, {names[7]: curve([0, 0.5])}]
    figure = figures.curves([result(), result()], panels, ["depth", "px"], "y")
    first, second = figure.axes
    looks = [(k.get_color(), k.get_marker(), k.get_linestyle()) for k in first.lines]
    assert len({(colour, marker) for colour, marker, _ in looks}) == 24
    assert {dash for _, _, dash in looks[:6]} == {"-"} != {dash for _, _, dash in looks[6:12]}
    (line,) = second.lines
    assert (line.get_color(), line.get_marker(), line.get_linestyle()) == looks[7]
    assert (first.get_xlabel(), second.get_xlabel()) == ("depth", "px")
    assert first.get_ylim() == second.get_ylim()


def test_bands_of_shares_end_at_0_and_1():
    share = ([0, 1, 2], [0.05, 0.5, 1], [0.1, 0.1, 0.1])
    for cut, expected in ((True, (0, 1)), (False, (0.05 - 0.196, 1.196))):
        axes = figures.curves([result()], [{"a": share}], "x", "y", share=cut).axes[0]
        ends = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])[:, 1]
        np.testing.assert_allclose((ends.min(), ends.max()), expected, atol=1e-4)


def test_references_are_levels_or_lines():
    for reference, expected in ((2.5, [2.5, 2.5]), (((0, 2), (0, 4)), [0, 4])):
        axes = figures.curves([result()], [{"a": curve([1])}], "x", "y", [(reference, "r")]).axes[0]
        np.testing.assert_array_equal(axes.lines[-1].get_ydata(), expected)
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "r"]


def crowd(panels, names, letters):
    long = "_of_a_model_that_has_a_long_name"
    named = {f"{i:02d} {'m' * letters}": curve([0, 0.5, 1], i) for i in range(names)}
    x_titles = ["relative depth (first layer 0, last 1)", "distance from the centre (px)"]
    return figures.curves(
        [result(f"{i}{long}") for i in range(panels)],
        [named] * panels,
        (x_titles * panels)[:panels],
        "mean attention distance (px)",
        [(0.5, "uniform attention")] * panels,
    )


def tokens():
    rng = np.random.default_rng(0)
    every = [rng.uniform(2, 16, (t, 12)) for t in (50, 197, 196)]
    every[0][3, 2] = np.inf
    panels = [{"attention": v, "mlp": v} for v in every]
    return figures.tokens([result()] * 3, panels, [1, 2, 0], "block, from 1", "|skip| / |branch|")


def texts(figure):
    """Returns (text, box) of what is shown; ticks beyond the ends of an axis are not."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        ticks = [tick for tick in ticks if not low <= tick.get_loc() <= high]
        beyond |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t, t.get_window_extent(canvas.get_renderer())) for t in shown if t not in beyond]
    return [(t.get_text(), box) for t, box in boxes if box.width > 0]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: crowd(1, 3, 8),
        lambda: crowd(2, 12, 30),
        lambda: crowd(3, 30, 12),
        lambda: crowd(5, 30, 60),
        tokens,
    ],
    ids=["1", "2", "3", "5", "tokens"],
)
def test_no_text_covers_another_or_leaves_the_page(draw):
    figure = draw()
    boxes = texts(figure)
    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        up = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= 0.5 or up <= 0.5, f"{a!r} covers {b!r}"


def test_token_heatmaps_show_the_numbers():
    figure = tokens()
    drawn = [axes.images[0] for axes in figure.axes if axes.images]
    assert [image.get_array().shape for image in drawn[::2]] == [
        (49, 12),
        (49, 12),
        (195, 12),
        (195, 12),
        (196, 12),
    ]
    assert np.isnan(np.ma.filled(drawn[0].get_array(), np.nan)[2, 2]), "infinite ones are grey"
    assert {(image.norm.vmin, image.norm.vmax) for image in drawn} == {
        (drawn[0].norm.vmin, drawn[0].norm.vmax)
    }
    assert 2 <= drawn[0].norm.vmin < 2.1 and 15.9 < drawn[0].norm.vmax <= 16
