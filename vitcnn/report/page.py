"""Report: Results -> figures, tables, claims, and one HTML page that stands alone.

It reads Results and nothing else, so it can be made on another day, on another machine. The one
exception are the images of the source `scenes`, which are remade from their provenance.
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
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import PIL.Image
import xarray

from vitcnn import analyses, data, figures, storage
from vitcnn.claims import Claim, all_claims
from vitcnn.data.sources import scenes
from vitcnn.report.agreement import agreement
from vitcnn.results import datasets

Results = Mapping[str, xarray.Dataset]

# The order of the figures by analysis; those of others come behind.
ORDER = (
    "cka",
    "accuracy",
    "similarity",
    "attention_distance",
    "head_cka",
    "receptive_field",
    "skip_ratio",
    "localization",
    "decoding",
    "probe",
)
SINGLE = ("cka", "similarity")  # a figure for each Result, rather than one for all of a job


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure of the report; `panels` are the heatmaps whose values show under the pointer."""

    name: str
    heading: str
    caption: str
    figure: Any
    panels: Sequence[figures.Panel] = ()


def read(workdirs: str | os.PathLike | Sequence[str | os.PathLike]) -> dict[str, xarray.Dataset]:
    """Reads the Results of one workdir, or of several: then each name begins with its workdir.

    Raises:
      FileNotFoundError: a workdir has no results.
    """
    if isinstance(workdirs, str | os.PathLike):
        workdirs = [workdirs]
    paths = [pathlib.Path(workdir) for workdir in workdirs]
    if len(paths) == 1:
        return datasets.load_all(paths[0])
    labels = [path.resolve().name for path in paths]
    if len(set(labels)) < len(labels):
        labels = [str(path).strip("/").replace("/", "-") for path in paths]
    return {
        f"{label}/{name}": result
        for label, path in zip(labels, paths, strict=True)
        for name, result in datasets.load_all(path).items()
    }


def write(
    results: Results | str | os.PathLike | Sequence[str | os.PathLike], out: str | os.PathLike
) -> pathlib.Path:
    """Writes index.html, figures/*.png and *.pdf, and tables/*.csv.

    Each file appears whole or not at all, the page last. The same Results give the same files.

    Args:
      results: Results by name, as `vitcnn.analyze` returns them; or a workdir, or several.
      out: folder to write into; made if it is not there.

    Returns:
      Path of index.html.

    Raises:
      FileNotFoundError: a workdir has no results.
      ValueError: there are no Results.
    """
    if not isinstance(results, Mapping):
        results = read(results)
    if not results:
        raise ValueError("a report needs at least one result")
    results = dict(sorted(results.items()))
    out = pathlib.Path(out)
    for folder in ("figures", "tables"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    found = all_claims(results)
    drawn = drawings(results)
    for drawing in drawn:
        for kind in ("png", "pdf"):
            figures.save(drawing.figure, out / "figures" / f"{drawing.name}.{kind}")
    for name, table in tables(results, found).items():
        with storage.atomic(out / "tables" / f"{name}.csv") as partial:
            table.to_csv(partial, float_format="%.9g", na_rep="nan")
    page = out / "index.html"
    with storage.atomic(page) as partial:
        partial.write_text(html(results, found, drawn), encoding="utf-8")
    return page


def drawings(results: Results) -> list[Drawing]:
    """Returns every figure that the analyses of the Results draw."""
    kinds = collections.defaultdict(dict)
    for name, result in results.items():
        kinds[datasets.provenance(result)["analysis"]][name] = result
    rank = {kind: i for i, kind in enumerate(ORDER)}
    drawn = []
    for kind in sorted(kinds, key=lambda kind: (rank.get(kind, len(ORDER)), kind)):
        analysis, jobs = analyses.find(kind), collections.defaultdict(dict)
        for name, result in kinds[kind].items():
            jobs[name if kind in SINGLE else _job(result)][name] = result
        for job, group in jobs.items():
            stem, said = _stem(job), f": {job}" if len(jobs) > 1 else ""
            for function in [f for f in dir(analysis) if f == "draw" or f.startswith("draw_")]:
                figure = getattr(analysis, function)(list(group.values()))
                if figure is None:
                    continue
                heading = (analysis.__doc__ or kind).splitlines()[0].rstrip(".")
                draw = getattr(analysis, function)
                heading, caption = getattr(draw, "heading", heading), getattr(draw, "caption", "")
                panels = (
                    figures.panels(*group.values()) if (kind, function) == ("cka", "draw") else ()
                )
                name = stem + function.removeprefix("draw").replace("_", ".", 1)
                drawn.append(Drawing(name, heading + said, caption, figure, panels))
    return drawn


def tables(results: Results, found: Sequence[Claim]) -> dict[str, Any]:
    """Returns every number as pandas tables: the claims, and one a shape of variable a Result."""
    import pandas as pd

    made = {"claims": pd.DataFrame(map(dataclasses.asdict, found)).rename_axis("row")}
    if agreed := agreement(results):
        made["agreement"] = pd.DataFrame(agreed).rename_axis("row")
    for name, result in results.items():
        shapes = collections.defaultdict(list)
        for key, variable in result.data_vars.items():
            shapes[variable.dims].append(key)
        for dims, keys in shapes.items():
            part = result[keys]
            if dims:
                end = "" if keys[0] == name.rpartition("/")[2] else f".{keys[0]}"
                made[_stem(name) + end] = part.to_dataframe()
            else:
                values = {key: [part[key].item()] for key in keys}
                made[_stem(name)] = pd.DataFrame(values).rename_axis("row")
    return made


def html(results: Results, found: Sequence[Claim], drawn: Sequence[Drawing]) -> str:
    """Returns the page: styles, pictures, script and data inside, nothing loaded from outside."""
    template = importlib.resources.files("vitcnn.report").joinpath("page.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    origins = {name: datasets.provenance(result) for name, result in results.items()}
    models = _models(results, origins)
    names = list(dict.fromkeys(model["name"] for model in models))
    sheets, agreed = [], agreement(results)
    for known in _unique(origin["data"] for origin in origins.values()):
        if known.get("source") == "scenes":
            sheets.append((known, _picture(_sheet(known))))
    return environment.from_string(template).render(
        title=" and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "vitcnn",
        images=list(dict.fromkeys(map(figures.describe_images, origins.values()))),
        models=models,
        origins=origins,
        datas=_unique(origin["data"] for origin in origins.values()),
        versions=_unique(origin["versions"] for origin in origins.values()),
        claims=found,
        plots=_plots(found),
        agreement=agreed,
        columns=list(dict.fromkeys(itertools.chain.from_iterable(agreed)))[2:],
        drawings=[(d, _picture(figures.png(d.figure)), hover(d)) for d in drawn],
        warnings=[(name, text) for name, o in origins.items() for text in o["warnings"]],
        sheets=sheets,
        configs={run: json.dumps(config, indent=2) for run, config in _configs(origins).items()},
    )


def hover(drawing: Drawing) -> str:
    """Returns what the page shows under the pointer, as JSON; "" if there are no heatmaps.

    Values and errors are whole numbers of 1e-4, row by row, row 0 at the bottom; null is undefined.
    Boxes are left, top, width and height of the axes in parts of the picture.
    """
    made = []
    for panel, axes in zip(drawing.panels, drawing.figure.axes, strict=False):
        box = axes.get_position()
        made.append(
            {
                "box": [round(v, 6) for v in (box.x0, 1 - box.y1, box.width, box.height)],
                "models": panel.models,
                "x": panel.x_layers,
                "y": panel.y_layers,
                "values": _whole(panel.values),
                "errors": _whole(panel.errors),
            }
        )
    return json.dumps(made, separators=(",", ":")).replace("<", "\\u003c") if made else ""


def _whole(array: np.ndarray) -> list[int | None]:
    return [round(v * 1e4) if math.isfinite(v) else None for v in array.ravel().tolist()]


def _job(result: xarray.Dataset) -> str:
    """Returns the name of the job that a Result is of, without that of its one model."""
    origin = datasets.provenance(result)
    return origin["name"].removesuffix("." + "".join(origin["models"]))


def _stem(name: str) -> str:
    return name.replace("/", ".")


def _unique(items: Any) -> list[Any]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())


def _models(results: Results, origins: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for every model, with its accuracy where a Result has it."""
    rows = {}
    for name, origin in origins.items():
        for model, known in origin["models"].items():
            row = rows.setdefault(
                (model, json.dumps(known, sort_keys=True)),
                {"name": model, "known": known, "weights": known.get("weights", {})},
            )
            if origin["analysis"] == "accuracy":
                right = results[name]
                numbers = (float(right.top1), float(right.top1_standard_error))
                row["accuracy"] = (*(100 * v for v in numbers), int(right.images))
    return list(rows.values())


def _plots(found: Sequence[Claim]) -> list[tuple[float, float, float] | None]:
    """Returns (low, effect, high) of each claim in percent of a common axis with zero at 50."""
    ends = [abs(v) for claim in found for v in (claim.effect, *claim.interval) if math.isfinite(v)]
    reach = max([0.05, *ends]) * 1.05

    def place(claim):
        shown = (claim.interval[0], claim.effect, claim.interval[1])
        return tuple(round(50 + 50 * v / reach, 2) for v in shown) if _finite(shown) else None

    return [place(claim) for claim in found]


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _sheet(known: Mapping[str, Any]) -> bytes:
    """Returns a PNG of the first images of each class of scenes, remade from their provenance."""
    fields = inspect.signature(scenes.load).parameters
    source = data.load("scenes", **{k: v for k, v in known.items() if k in fields})
    sheet = data.contact_sheet(source, rows=3, columns=min(source.classes, 12), by_class=True)
    file = io.BytesIO()
    PIL.Image.fromarray(sheet).save(file, format="png")
    return file.getvalue()


def _configs(origins: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of each run, as far as its Results record them, in a config's form."""
    runs = collections.defaultdict(lambda: {"models": {}, "analyses": {}})
    for name, origin in origins.items():
        run = runs[name.rpartition("/")[0]]
        run["models"] |= origin["models"]
        taps = itertools.groupby(origin["fields"]["taps"], key=lambda layer: layer[0])
        layers = {model: [tap for _, tap in members] for model, members in taps}
        run["analyses"][origin["name"]] = {**origin["fields"], "taps": layers}
        run |= {key: origin[key] for key in ("data", "group", "seed", "precision")}
    return dict(runs)
