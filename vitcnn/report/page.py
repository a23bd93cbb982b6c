"""Report: Results -> figures, tables, claims, and one HTML page that stands alone.

A report needs only Results, so it can be written on another day, on another machine. Images are not
in Results; those of the source `scenes` are rendered again from their provenance.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import importlib.resources
import inspect
import io
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import PIL.Image
import xarray

from vitcnn import analyses, data, figures, storage
from vitcnn.analyses import probe
from vitcnn.claims import all_claims
from vitcnn.data.sources import scenes
from vitcnn.report.agreement import agreement
from vitcnn.report.transfer import best_layers
from vitcnn.results import datasets
from vitcnn.verdicts import QUESTIONS, Claim

Results = Mapping[str, xarray.Dataset]

# The order of the figures by analysis; the figures of all other analyses come last.
ORDER = (
    "cka",
    "layer_cka",
    "extremes",
    "accuracy",
    "similarity",
    "attention_distance",
    "head_cka",
    "receptive_field",
    "skip_ratio",
    "lesion",
    "norms",
    "localization",
    "decoding",
    "objects",
    "cues",
    "probe",
)
SINGLE = (
    "cka",
    "extremes",
    "similarity",
)  # a figure for each Result, rather than one for all of its job


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure of the report; `panels` are the heatmaps whose values show under the pointer."""

    name: str
    heading: str
    caption: str
    figure: Any
    panels: Sequence[figures.Panel] = ()


def read(workdirs: str | os.PathLike | Sequence[str | os.PathLike]) -> dict[str, xarray.Dataset]:
    """Reads the Results of one workdir or of several; several workdirs begin their Results' names.

    Raises:
      FileNotFoundError: a workdir has no results.
    """
    if isinstance(workdirs, str | os.PathLike):
        workdirs = [workdirs]
    paths = [storage.as_path(workdir, "workdir") for workdir in workdirs]
    if len(paths) == 1:
        return datasets.load_all(paths[0])
    labels = [path.name if storage.is_remote(path) else path.resolve().name for path in paths]
    if len(set(labels)) < len(labels):
        labels = [str(path).strip("/").replace("/", "-") for path in paths]
    return {
        f"{label}/{name}": result
        for label, path in zip(labels, paths, strict=True)
        for name, result in datasets.load_all(path).items()
    }


def write(
    results: Results | str | os.PathLike | Sequence[str | os.PathLike], out: str | os.PathLike
) -> storage.Path:
    """Writes index.html, figures/*.png and *.pdf, and tables/*.csv.

    Each file appears whole or not at all, the page last. The same Results give the same files.

    Args:
      results: Results by name, as `vitcnn.analyze` returns them; or a workdir, or several.
      out: folder to write into, which is created if it does not exist.

    Returns:
      Path of index.html.

    Raises:
      FileNotFoundError: a workdir has no results.
      ValueError: there are no Results.
    """
    if not isinstance(results, Mapping):
        results = read(results)
    if not results:
        raise ValueError("a report needs at least one Result, and `results` is empty")
    results = dict(sorted(results.items()))
    out = storage.as_path(out, "the folder of the report")
    for folder in ("figures", "tables"):
        storage.make_folder(out / folder)
    claims = all_claims(results)
    drawn = drawings(results)
    for drawing in drawn:
        for extension in ("png", "pdf"):
            figures.save(drawing.figure, out / "figures" / f"{drawing.name}.{extension}")
    for name, table in tables(results, claims).items():
        with storage.atomic(out / "tables" / f"{name}.csv") as partial:
            table.to_csv(partial, float_format="%.9g", na_rep="nan")
    page = out / "index.html"
    with storage.atomic(page) as partial:
        partial.write_text(html(results, claims, drawn), encoding="utf-8")
    return page


def drawings(results: Results) -> list[Drawing]:
    """Returns every figure that the analyses of the Results draw."""
    by_analysis = collections.defaultdict(dict)
    for name, result in results.items():
        by_analysis[datasets.provenance(result)["analysis"]][name] = result
    rank = {analysis: i for i, analysis in enumerate(ORDER)}
    drawn = []
    for name in sorted(by_analysis, key=lambda name: (rank.get(name, len(ORDER)), name)):
        analysis, jobs = analyses.find(name), collections.defaultdict(dict)
        for result_name, result in by_analysis[name].items():
            jobs[result_name if name in SINGLE else _job(result)][result_name] = result
        for job, group in jobs.items():
            suffix = f": {job}" if len(jobs) > 1 else ""
            for function in [f for f in dir(analysis) if f == "draw" or f.startswith("draw_")]:
                draw = getattr(analysis, function)
                figure = draw(list(group.values()))
                if figure is None:
                    continue
                default = (analysis.__doc__ or name).splitlines()[0].rstrip(".")
                heading, caption = getattr(draw, "heading", default), getattr(draw, "caption", "")
                heatmaps = (name, function) == ("cka", "draw")
                panels = figures.panels(*group.values()) if heatmaps else ()
                file = _stem(job) + function.removeprefix("draw").replace("_", ".", 1)
                drawn.append(Drawing(file, heading + suffix, caption, figure, panels))
    return drawn


def tables(results: Results, claims: Sequence[Claim]) -> dict[str, Any]:
    """Returns every number as pandas tables.

    One table holds the claims, one the agreement of the measures, one the best layers for transfer.
    Of each Result, variables with
    the same dimensions share a table.
    """
    import pandas as pd

    rows = [{**dataclasses.asdict(claim), "survives": claim.survives} for claim in claims]
    frames = {"claims": pd.DataFrame(rows).rename_axis("row")}
    if rows := agreement(results):
        frames["agreement"] = pd.DataFrame(rows).rename_axis("row")
    if rows := best_layers(results):
        frames["transfer"] = pd.DataFrame(rows).rename_axis("row")
    for name, result in results.items():
        shapes = collections.defaultdict(list)
        for key, variable in result.data_vars.items():
            shapes[variable.dims].append(key)
        for dims, keys in shapes.items():
            part = result[keys]
            if dims:
                end = "" if keys[0] == name.rpartition("/")[2] else f".{keys[0]}"
                frames[_stem(name) + end] = part.to_dataframe()
            else:
                values = {key: [part[key].item()] for key in keys}
                frames[_stem(name)] = pd.DataFrame(values).rename_axis("row")
    return frames


def html(results: Results, claims: Sequence[Claim], drawn: Sequence[Drawing]) -> str:
    """Returns the page, which holds its styles, pictures, script and data and loads nothing."""
    template = importlib.resources.files("vitcnn.report").joinpath("page.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    origins = {name: datasets.provenance(result) for name, result in results.items()}
    models = _models(results, origins)
    names = list(dict.fromkeys(model["name"] for model in models))
    agreed = agreement(results)
    sources = _unique(origin["data"] for origin in origins.values())
    scenes_only = [source for source in sources if source.get("source") == "scenes"]
    return environment.from_string(template).render(
        title=" and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "vitcnn",
        images=list(dict.fromkeys(map(figures.describe_images, origins.values()))),
        models=models,
        origins=origins,
        datas=sources,
        versions=_unique(origin["versions"] for origin in origins.values()),
        claims=claims,
        plots=_plots(claims),
        questions=QUESTIONS,
        transfer=best_layers(results),
        features=probe.NAMES,
        agreement=agreed,
        columns=list(dict.fromkeys(itertools.chain.from_iterable(agreed)))[2:],
        drawings=[(d, _picture(figures.png(d.figure)), hover(d)) for d in drawn],
        warnings=[(name, text) for name, o in origins.items() for text in o["warnings"]],
        sheets=[(fields, _picture(_sheet(fields))) for fields in scenes_only],
        configs={run: json.dumps(config, indent=2) for run, config in _configs(origins).items()},
    )


def hover(drawing: Drawing) -> str:
    """Returns the numbers that the page shows under the pointer, as JSON; "" without heatmaps.

    Values and errors are integers in units of 1e-4, row by row, with row 0 at the bottom; null is
    undefined. A box is left, top, width and height of the axes as parts of the picture.
    """
    boxes = []
    for panel, axes in zip(drawing.panels, drawing.figure.axes, strict=False):
        box = axes.get_position()
        boxes.append(
            {
                "box": [round(v, 6) for v in (box.x0, 1 - box.y1, box.width, box.height)],
                "models": panel.models,
                "x": panel.x_layers,
                "y": panel.y_layers,
                "values": _whole(panel.values),
                "errors": _whole(panel.errors),
            }
        )
    return json.dumps(boxes, separators=(",", ":")).replace("<", "\\u003c") if boxes else ""


def _whole(array: np.ndarray) -> list[int | None]:
    return [round(v * 1e4) if math.isfinite(v) else None for v in array.ravel().tolist()]


def _job(result: xarray.Dataset) -> str:
    """Returns the name of the job that wrote a Result, without the name of its one model."""
    origin = datasets.provenance(result)
    return origin["name"].removesuffix("." + "".join(origin["models"]))


def _stem(name: str) -> str:
    return name.replace("/", ".")


def _unique(items: Any) -> list[Any]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())


def _models(results: Results, origins: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row of the table of models for each model, with its accuracy if a Result has it."""
    rows = {}
    for name, origin in origins.items():
        for model, record in origin["models"].items():
            row = rows.setdefault(
                (model, json.dumps(record, sort_keys=True)),
                {"name": model, "record": record, "weights": record.get("weights", {})},
            )
            if origin["analysis"] == "accuracy":
                accuracy = results[name]
                numbers = (float(accuracy.top1), float(accuracy.top1_standard_error))
                row["accuracy"] = (*(100 * v for v in numbers), int(accuracy.images))
    return list(rows.values())


def _plots(claims: Sequence[Claim]) -> list[tuple[float, float, float] | None]:
    """Returns (low, effect, high) of each claim in percent of a common axis with zero at 50."""
    ends = [abs(v) for claim in claims for v in (claim.effect, *claim.interval) if math.isfinite(v)]
    reach = max([0.05, *ends]) * 1.05

    def place(claim):
        values = (claim.interval[0], claim.effect, claim.interval[1])
        return tuple(round(50 + 50 * v / reach, 2) for v in values) if _finite(values) else None

    return [place(claim) for claim in claims]


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _sheet(record: Mapping[str, Any]) -> bytes:
    """Returns a PNG of the first images of each class of scenes, rendered from their provenance."""
    fields = inspect.signature(scenes.load).parameters
    source = data.load("scenes", **{k: v for k, v in record.items() if k in fields})
    sheet = data.contact_sheet(source, rows=3, columns=min(source.classes, 12), by_class=True)
    file = io.BytesIO()
    PIL.Image.fromarray(sheet).save(file, format="png")
    return file.getvalue()


def _configs(origins: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that the Results of each run record, arranged as in a config."""
    runs = collections.defaultdict(lambda: {"models": {}, "analyses": {}})
    for name, origin in origins.items():
        run = runs[name.rpartition("/")[0]]
        run["models"] |= origin["models"]
        taps = itertools.groupby(origin["fields"]["taps"], key=lambda layer: layer[0])
        layers = {model: [tap for _, tap in members] for model, members in taps}
        run["analyses"][origin["name"]] = {**origin["fields"], "taps": layers}
        run |= {key: origin[key] for key in ("data", "group", "seed", "precision")}
    return dict(runs)
