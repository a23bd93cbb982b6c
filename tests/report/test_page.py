"""The report is made from Results alone, and what it says is read back from its files."""

import base64
import html.parser
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import xarray
from fabricated import SCENES, accuracy, cka, pair, provenance, resnet_layers, vit_layers

from vitcnn import claims, data, report, results

DEAD = "vit/block01/attn"
SAID = f"layers that do not vary, CKA is NaN: {DEAD}"


def full():
    return {
        "cka": pair(dead=[DEAD], data=SCENES, warnings=[SAID]),
        "accuracy.vit": accuracy("vit", "vit", 0.719, 0.005),
        "accuracy.resnet": accuracy("resnet", "resnet", 0.917, 0.003),
    }


def save_all(measured, workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    for name, result in measured.items():
        result.to_netcdf(workdir / f"{name}.nc", engine="h5netcdf")
    return workdir


class Page(html.parser.HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.said, self.scripts, self.inside = [], [], [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts.append((self.tags[-1][1], text))
        elif self.inside != "style":
            self.said.append(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    page = report.write(full(), out)
    assert page == out / "index.html"
    return out, Page(page)


def test_files(made):
    out, _ = made
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    drawn = [f"figures/{n}.{k}" for n in ("accuracy", "cka", "cka.correspondence") for k in
             ("pdf", "png")]  # fmt: skip
    names = ("accuracy.resnet", "accuracy.vit", "cka", "cka.lower_upper_difference",
             "cka.match_depth", "claims")  # fmt: skip
    assert found == sorted([*drawn, "index.html", *(f"tables/{n}.csv" for n in names)])


def test_page_loads_nothing_from_outside(made):
    _, page = made
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert attributes.get(key, "data:image/png;").startswith("data:image/png;"), tag
        assert tag not in ("link", "iframe", "object", "embed", "base")
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp|import\(", page.source)


def test_page_says_what_was_compared(made):
    _, page = made
    for text in (
        "resnet and vit",
        "1,234,567",
        "ab12ab12ab12",
        "71.90 \u00b1 0.50 %",
        "91.70 \u00b1 0.30 %",
        "scenes test, 640 images",
        "revision 0123abcd",
        "highest",
        SAID,
        "raghu2021vision",
    ):
        assert text in page.text, text
    order = [
        "What was compared",
        "Claims of the paper",
        "Similarity of layers",
        "Which layer matches which",
        "Accuracy Each",
        "Warnings",
        "The images",
        "To cite",
    ]
    places = [page.text.index(text) for text in order]
    assert places == sorted(places)


def test_page_shows_every_claim_with_its_verdict(made):
    _, page = made
    found = claims.all_claims(full())
    assert len(found) == 3
    shown = [a["class"].split()[1] for t, a in page.tags if "verdict" in a.get("class", "")]
    assert shown == [claim.verdict.replace(" ", "-") for claim in found]
    for claim in found:
        low, high = claim.interval
        assert claim.statement in page.text and claim.definition in page.text
        assert f"{claim.effect:+.3f}" in page.text
        assert f"{low:+.3f} to {high:+.3f}" in page.text


def test_hover_shows_the_numbers_of_the_result_where_they_are_drawn(made):
    out, page = made
    (script,) = [text for attributes, text in page.scripts if attributes.get("class") == "hover"]
    panels = json.loads(script)
    assert [tuple(p["models"]) for p in panels] == [
        ("vit", "vit"),
        ("resnet", "resnet"),
        ("resnet", "vit"),
    ]
    result = full()["cka"]
    picture = PIL.Image.open(out / "figures/cka.png").convert("RGB")
    colours = matplotlib.colormaps["magma"]
    for panel in panels:
        x, y = panel["models"]
        rows, columns = len(panel["y"]), len(panel["x"])
        values = np.array(panel["values"], float).reshape(rows, columns)
        errors = np.array(panel["errors"], float).reshape(rows, columns)
        at = {
            "layer_x": [f"{x}/{name}" for name in panel["x"]],
            "layer_y": [f"{y}/{name}" for name in panel["y"]],
        }
        truth = result.cka.sel(at).transpose("layer_y", "layer_x").values
        error = result.cka_standard_error.sel(at).transpose("layer_y", "layer_x").values
        np.testing.assert_allclose(values / 1e4, truth, atol=5.1e-5)
        np.testing.assert_allclose(errors / 1e4, error, atol=5.1e-5)
        left, top, width, height = panel["box"]
        for row, column in [(0, 0), (0, columns - 1), (rows - 1, 0), (4, 9)]:
            u = left + width * (column + 0.5) / columns
            v = top + height * (1 - (row + 0.5) / rows)
            shown = picture.getpixel((int(u * picture.width), int(v * picture.height)))
            expected = np.array(colours(truth[row, column])[:3]) * 255
            np.testing.assert_allclose(shown, expected, atol=3)
    dead = panels[0]["y"].index("block01/attn")
    assert panels[0]["values"][dead * len(panels[0]["x"])] is None


def test_tables_hold_every_number_with_its_error(made):
    out, _ = made
    result = full()["cka"]
    table = pd.read_csv(out / "tables/cka.csv").set_index(["layer_x", "layer_y"])
    assert len(table) == result.cka.size
    for x, y in [("vit/embed", "resnet/stem/pool"), ("resnet/stem/conv", "vit/logits")]:
        row, at = table.loc[(x, y)], {"layer_x": x, "layer_y": y}
        assert row.cka == pytest.approx(float(result.cka.sel(at)), rel=1e-8)
        error = float(result.cka_standard_error.sel(at))
        assert row.cka_standard_error == pytest.approx(error, rel=1e-8)
        assert row.depth_x == pytest.approx(float(result.depth_x.sel(layer_x=x)))
    assert np.isnan(table.loc[(DEAD, "vit/embed")].cka)
    top1 = pd.read_csv(out / "tables/accuracy.vit.csv")
    assert (top1.top1[0], top1.top1_standard_error[0], top1.images[0]) == (0.719, 0.005, 1000)
    claims = pd.read_csv(out / "tables/claims.csv")
    assert claims.number.tolist() == [1, 2, 3]
    assert claims.effect[0] == pytest.approx(
        float(result.lower_upper_difference.sel(model_x="vit", model_y="resnet"))
    )


def test_the_scenes_are_those_that_were_measured(made):
    _, page = made
    (sheet,) = [a["src"] for t, a in page.tags if a.get("class") == "sheet"]
    drawn = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))))
    fields = {k: v for k, v in SCENES.items() if k not in ("source", "bayes_accuracy")}
    source = data.load("scenes", **fields)
    first = next(i for i in range(400) if source[i]["label"] == 0)
    np.testing.assert_array_equal(drawn[2:34, 2:34], source[first]["image"])


def test_settings_are_those_of_the_results(made):
    _, page = made
    config = json.loads(re.search(r"Settings (\{.*?\}) Data \{", page.text)[1])
    assert set(config["analyses"]) == {"cka", "accuracy.vit", "accuracy.resnet"}
    assert config["analyses"]["cka"]["taps"]["vit"] == vit_layers(3)
    assert (config["group"], config["seed"], config["precision"]) == (32, 7, "highest")


def test_report_needs_neither_models_nor_data(tmp_path):
    """Another process, in which loading a model or any stored images is an error."""
    measured = full()
    measured["cka"] = pair(dead=[DEAD], warnings=[SAID])  # measured on an npz that is not here
    save_all(measured, tmp_path / "run")
    code = (
        "import sys, vitcnn.model, vitcnn.data, vitcnn.checkpoints\n"
        "def refuse(*args, **kwargs): raise AssertionError('the report loads something')\n"
        "vitcnn.model.load = vitcnn.load = vitcnn.data.load = refuse\n"
        "vitcnn.checkpoints.restore = refuse\n"
        "from vitcnn import report\n"
        "report.write(sys.argv[1], sys.argv[2])\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, "run", "there/report"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert SAID in Page(tmp_path / "there/report/index.html").text
    again = report.write(measured, tmp_path / "again")
    assert again.read_bytes() == (tmp_path / "there/report/index.html").read_bytes()


def test_script_prints_claims_and_path(tmp_path):
    save_all(full(), tmp_path / "run")
    script = pathlib.Path(__file__).parents[2] / "scripts/report.py"
    run = subprocess.run(
        [sys.executable, str(script), "--workdir=run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for claim in claims.all_claims(full()):
        assert str(claim) in run.stdout
    assert run.stdout.splitlines()[-1] == "report: run/report/index.html"
    assert (tmp_path / "run/report/index.html").is_file()
    assert "glyf" not in run.stderr


def test_several_workdirs_keep_their_names(tmp_path):
    save_all(full(), tmp_path / "first")
    save_all({"cka": pair(seed=1)}, tmp_path / "second")
    save_all({"cka": pair(seed=2)}, tmp_path / "other/second")
    both = report.read([tmp_path / "first", tmp_path / "second"])
    assert set(both) == {f"first/{name}" for name in full()} | {"second/cka"}
    page = Page(report.write(both, tmp_path / "out"))
    for text in ("Similarity of layers: first/cka", "Similarity of layers: second/cka"):
        assert text in page.text
    assert (tmp_path / "out/tables/second.cka.csv").is_file()
    assert len(report.read([tmp_path / "second", tmp_path / "other/second"])) == 2


def test_one_model_and_names_that_look_like_html(tmp_path):
    result = cka({"<b>&": ("vit", "</script>", vit_layers(1))})
    page = Page(report.write({"cka": result}, tmp_path))
    assert "None to judge" in page.text
    assert ("b", {}) in page.tags and "<b>&</b>" not in page.source
    assert [a for t, a in page.tags if t == "figure"] == [{}]
    (script,) = [text for attributes, text in page.scripts if attributes.get("class") == "hover"]
    assert json.loads(script)[0]["models"] == ["<b>&", "<b>&"]


def test_201_layers_stay_below_5_mb(tmp_path):
    models = {
        "vit": ("vit", "B/32", vit_layers(12)),
        "resnet": ("resnet", "R50x1", resnet_layers((3, 4, 6, 3))),
    }
    result = cka(models)  # noise, which PNG can hardly compress
    assert result.sizes["layer_x"] == 201
    assert report.write({"cka": result}, tmp_path).stat().st_size < 5e6


def test_what_fails_leaves_the_old_page(tmp_path, monkeypatch):
    page = report.write(full(), tmp_path)
    before = page.read_bytes()

    def fail(*args):
        raise OSError("no space")

    monkeypatch.setattr(report.page, "html", fail)
    with pytest.raises(OSError, match="no space"):
        report.write(full(), tmp_path)
    assert page.read_bytes() == before
    assert not list(tmp_path.rglob("*.partial"))


def test_nothing_to_report_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results"):
        report.write(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="at least one"):
        report.write({}, tmp_path / "out")


def test_saved_results_give_the_same_page_each_time(tmp_path):
    """What `results.save` writes is what the report reads."""
    measured = full()
    for name, result in measured.items():
        known = results.provenance(result)
        results.save(results.stamp(result.drop_attrs(), known), tmp_path / f"{name}.nc")
    assert set(report.read(tmp_path)) == set(measured)
    first = report.write(tmp_path, tmp_path / "a").read_bytes()
    shutil.rmtree(tmp_path / "a")
    assert report.write(tmp_path, tmp_path / "a").read_bytes() == first


def similarity_of(result, **maps):
    """A Result of the analysis `similarity` of the layers of a Result of `cka`."""
    coords = {name: result[name] for name in ("layer_x", "layer_y", "model_of_x", "model_of_y")}
    variables = {}
    for name, values in maps.items():
        said = {"long_name": name}
        variables[name] = (("layer_x", "layer_y"), values, said)
        variables[f"{name}_standard_error"] = (("layer_x", "layer_y"), 0 * values)
    known = json.loads(result.attrs["provenance"]) | {"analysis": "similarity", "name": "other"}
    made = xarray.Dataset(variables, coords)
    return made.assign_attrs(provenance=json.dumps(known))


def test_agreement_is_the_rank_correlation_with_cka():
    reference = pair()
    values = reference.cka.values
    other = similarity_of(reference, procrustes=values**3, neighbours=-values)
    rows = report.agreement({"cka": reference, "other": other})
    assert [row["measure"] for row in rows] == ["procrustes", "neighbours"]
    for row, sign in zip(rows, (1, -1), strict=True):
        for key in ("vit", "resnet", "vit and resnet"):
            assert row[key] == pytest.approx(sign), "a monotone function has the same ranks"
    noise = np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)
    own = similarity_of(reference, cka=noise, procrustes=noise)
    (row,) = report.agreement({"cka": reference, "other": own})
    assert row["vit and resnet"] == pytest.approx(1), "its own CKA counts first"
    table = report.tables({"cka": reference, "other": other}, [])["agreement"]
    assert table["vit"].tolist() == pytest.approx([1, -1])
    page = report.html({"cka": reference, "other": other}, [], [])
    assert "Do other measures agree with CKA?" in page and page.count(">-1.00<") == 3
    known = json.loads(reference.attrs["provenance"]) | {"seed": 8}
    elsewhere = reference.assign_attrs(provenance=json.dumps(known))
    assert report.agreement({"cka": elsewhere, "other": other}) == [], "other images"


def test_agreement_of_results_with_different_models_has_blanks():
    first = pair()
    models = {"other": ("vit", "tiny", vit_layers(1))}
    second = cka(models, seed=1)
    results = {
        "a": first,
        "b": second,
        "similarity.a": similarity_of(first, procrustes=first.cka.values),
        "similarity.b": similarity_of(second, procrustes=second.cka.values),
    }
    page = report.html(results, [], [])
    text = re.sub(r"\s+", " ", page[page.index("Do other measures agree") :])
    rows = re.findall(r"<tr>(.*?)</tr>", text[: text.index("</table>")])
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert cells == [
        ["Result", "Measure", "vit", "resnet", "vit and resnet", "other"],
        ["similarity.a", "procrustes", "1.00", "1.00", "1.00", ""],
        ["similarity.b", "procrustes", "", "", "", "1.00"],
    ]


@pytest.mark.parametrize(
    "other", [{"images": 320}, {"repeats": 3}, {"group": 64}, {"pool": "mean"}]
)
def test_agreement_is_with_cka_of_the_same_images_groups_and_features(other):
    reference = pair()
    made = similarity_of(reference, procrustes=reference.cka.values)
    known = json.loads(made.attrs["provenance"])
    (known if "group" in other else known["fields"]).update(other)
    made.attrs["provenance"] = json.dumps(known)
    assert report.agreement({"cka": reference, "other": made}) == []


def test_agreement_between_equally_deep_models_takes_every_pair_of_layers():
    taps = vit_layers(1)
    reference = cka({"a": ("vit", "x", taps), "b": ("resnet", "y", taps)})
    values = reference.cka.values.copy()
    n = len(taps)
    values[np.arange(n), n + np.arange(n)] *= -1  # layer k of a with layer k of b
    made = similarity_of(reference, procrustes=values)
    (row,) = report.agreement({"cka": reference, "other": made})
    assert (row["a"], row["b"]) == (pytest.approx(1), pytest.approx(1))
    assert row["a and b"] < 0.9


def probe_of(model, gain, spread, held_out=None):
    """A Result of probes of three layers, whose gains over the last have errors of 0.01."""
    accuracy = 0.5 + np.array(gain)
    dims, coords = ("layer", "feature"), {"layer": ["a", "b", "c"], "feature": ["class", "spatial"]}
    variables = {"accuracy": (dims, accuracy), "gain": (dims, gain)}
    variables["gain_standard_error"] = (dims, np.full((3, 2), 0.01))
    variables["gain_spread"] = (dims, np.full((3, 2), spread))
    if held_out is not None:
        variables["held_out_accuracy"] = (dims, held_out)
    coords["depth"] = ("layer", [0, 0.5, 1])
    known = provenance("probe", {model: ("vit", "tiny")}) | {"name": f"probe.{model}"}
    attrs = {"provenance": json.dumps(known)}
    return xarray.Dataset(variables, coords, attrs)


def test_the_layer_to_take_for_transfer():
    gain = np.array([[-0.2, 0.1], [0.05, 0.2], [0.0, 0.0]])
    held_out = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.2]])
    results = {
        "probe.v": probe_of("v", gain, np.nan),
        "probe.h": probe_of("h", gain, 0.02, held_out),
    }
    rows = {(row["model"], row["feature"]): row for row in report.best_layers(results)}
    assert {key: row["layer"] for key, row in rows.items()} == {
        ("v", "class"): "b",  # the most accurate on the same images
        ("v", "spatial"): "b",
        ("h", "class"): "c",  # the most accurate on other images
        ("h", "spatial"): "a",
    }
    row = rows["v", "spatial"]
    assert not row["is_fair"] and row["gain"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == pytest.approx((0.2 - 0.0196, 0.2 + 0.0196))
    row, half = rows["h", "spatial"], 1.96 * np.hypot(0.01, 0.02)
    assert row["is_fair"] and row["accuracy"] == pytest.approx(0.6)
    assert (row["low"], row["high"]) == pytest.approx((0.1 - half, 0.1 + half))
    page = re.sub(r"<[^>]*>", "", report.html(results, [], []))
    assert "Which layer should I take for transfer?" in page
    assert f"+10.0 ({100 * (0.1 - half):+.1f} to {100 * (0.1 + half):+.1f}) points" in page
    assert "it is the last" in page and "mean of positions" in page
    assert "its gain is too great" in page and "chosen on its images" in page
    table = report.tables(results, [])["transfer"]
    assert table["layer"].tolist() == ["b", "b", "c", "a"]


def test_page_marks_what_stands_after_the_correction_and_what_would_settle_the_rest():
    found = claims.all_claims(full())
    page = re.sub(r"\s+", " ", report.html(full(), found, []))
    assert "Twelve questions were named before anything was measured: 1, 2, 3, 4a" in page
    told = [claim for claim in found if claim.verdict != "cannot tell"]
    assert page.count('<div class="small">also after') == sum(c.survives for c in told)
    assert page.count(">not after Holm") == sum(not c.survives for c in told)
    for claim in found:
        assert f"over {claim.over}" in page and claim.settled_by in page
