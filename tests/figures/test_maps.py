"""Maps are read back: their arrays, their colour scales, and the boxes of their texts."""

import itertools
import json

import numpy as np
import pytest
import xarray
from fabricated import provenance
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from vitcnn import figures


def result(name="vit_b32", family="vit", variant="B/32"):
    known = provenance("localization", {name: (family, variant)})
    return xarray.Dataset(attrs={"provenance": json.dumps(known)})


def block(n, shape=(7, 7), scale=1.0, seed=0, **mark):
    rng = np.random.default_rng(seed)
    return [figures.Map(f"token ({i}, 0)", scale * rng.random(shape), **mark) for i in range(n)]


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def bars(figure):
    return [axes for axes in figure.axes if not axes.images]


def test_maps_have_the_numbers_with_row_0_on_top_and_square_cells():
    one = figures.Map("wide", np.arange(12.0).reshape(3, 4), mark=(2, 1))
    tall = figures.Map("tall", np.arange(12.0).reshape(4, 3))
    figure = figures.maps([result()], [[one, tall]], "CKA")
    for axes, made in zip(figure.axes, (one, tall), strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), made.values)
        assert axes.get_title(loc="left") == made.title
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
        assert x1 - x0 == pytest.approx(y0 - y1)  # row 1 lies below row 0
        assert x1 > x0 and y1 < y0
    boxes = figure.axes[0].patches
    assert {box.get_xy() for box in boxes} == {(0.5, 1.5)} and not figure.axes[1].patches
    assert {(box.get_width(), box.get_height()) for box in boxes} == {(1, 1)}
    framed = figures.Map("box", one.values, mark=(0.5, 1, 2, 1.5))
    for box in figures.maps([result()], [[framed]], "CKA").axes[0].patches:
        assert box.get_bbox().bounds == (0.5, 0, 1.5, 2)  # left, top, width, height


def test_one_scale_for_the_figure_for_a_result_or_for_a_map():
    todo = [block(2, seed=1), block(3, scale=10, seed=2)]
    values = [[one.values for one in part] for part in todo]
    names = [result("a"), result("b")]
    ranges = lambda figure: [image.get_clim() for image in images(figure)]  # noqa: E731
    ends = lambda arrays: (np.min(arrays), np.max(arrays))  # noqa: E731

    figure = figures.maps(names, todo, "CKA")
    least, most = ends(values[0])[0], ends(values[1])[1]
    least = min(least, ends(values[1])[0])
    assert set(ranges(figure)) == {(least, most)} and len(bars(figure)) == 1
    figure = figures.maps(names, todo, "CKA", "result")
    assert ranges(figure) == [ends(values[0])] * 2 + [ends(values[1])] * 3
    assert [axes.get_title(loc="left") for axes in bars(figure)] == ["CKA", "CKA"]
    figure = figures.maps(names, todo, "CKA", False, (0, None))
    assert ranges(figure) == [(0, one.max()) for part in values for one in part]
    (bar,) = bars(figure)
    assert [label.get_text() for label in bar.get_yticklabels()] == ["low", "high"]
    for image, one in zip(images(figure), itertools.chain(*values), strict=True):
        assert image.axes.texts[0].get_text() == f"0 to {one.max():.2g}"


def test_what_the_scale_does_not_show_is_announced():
    drawn = {}
    for limits in [(None, None), (0.2, None), (None, 0.5), (0.2, 0.5), (-1, 2)]:
        figure = figures.maps([result()], [block(2)], "CKA", True, limits)
        (bar,) = [image.colorbar for image in images(figure) if image.colorbar]
        drawn[limits] = bar.extend
    assert list(drawn.values()) == ["neither", "min", "max", "both", "neither"]


def test_a_constant_or_undefined_map_can_be_drawn():
    flat = figures.Map("flat", np.full((4, 4), 2.0))
    none = figures.Map("none", np.full((4, 4), np.nan))
    for shared in (True, "result", False):
        figure = figures.maps([result()], [[flat, none]], "CKA", shared)
        FigureCanvasAgg(figure).draw()
        assert images(figure)[1].get_array().mask.all()


@pytest.mark.parametrize(
    ("counts", "columns"), [([4, 4], [4, 4]), ([24, 17], [6, 6]), ([8, 1], [4, 1])]
)
@pytest.mark.parametrize("shared", [True, "result", False])
def test_no_text_covers_another_or_leaves_the_page(counts, columns, shared):
    names = [result(), result("a_name_that_is_longer_than_its_place", "resnet", "R152x2")]
    todo = [block(n, scale=1e-3, seed=n) for n in counts]
    scale = "mean |gradient|, on a scale of its own for each of them"
    figure = figures.maps(names, todo, scale, shared, remark="After the residual additions.")
    tops = [round(image.axes.get_position().y0, 6) for image in images(figure)]
    first = [tops[: counts[0]], tops[counts[0] :]]
    assert [part.count(part[0]) for part in first] == columns
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    found = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in found]
    found = [(text, box) for text, box in found if box.width > 0]
    assert len(found) > sum(counts)
    for text, box in found:
        inside = box.x0 >= 0 and box.y0 >= 0
        assert inside and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
    for (a, first), (b, second) in itertools.combinations(found, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        up = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= 0.5 or up <= 0.5, f"{a!r} covers {b!r}"


def test_blocks_are_titled_from_their_provenance():
    figure = figures.maps([result()], [block(1)], "CKA")
    assert [t.get_text() for t in figure.texts if t.get_text()] == [
        "vit_b32",
        "vit B/32 \u00b7 images.npz, 640 images",
    ]


def test_no_maps_or_an_unknown_way_of_sharing_is_an_error():
    for panels in ([], [[]]):
        with pytest.raises(ValueError, match="at least one map"):
            figures.maps([result()], panels, "CKA")
    with pytest.raises(ValueError, match="shared = 'model'"):
        figures.maps([result()], [block(1)], "CKA", "model")
