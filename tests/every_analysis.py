"""Runs every analysis on networks of a test, and checks that the report draws each of them."""

import warnings

import vitcnn
from vitcnn import analyses, report
from vitcnn import config as configs

SCENES = {"classes": 4, "image_size": 32}
# Fields that make an analysis small; a test may replace them.
FIELDS = {
    "decoding": {"targets": ("position", "colour"), "folds": 3},
    "localization": {"max_positions": 16},
}
FEATURES = {"features": ("spatial", "tokens"), "positions": (0, 5)}


def measured(models, workdir, fields, leave_out=(), more=(), probe_fit=FEATURES, zeros=".*"):
    """Returns (workdir, Results) of every analysis that there is.

    Args:
      models: by name.
      workdir: the folder of the run.
      fields: analysis -> its fields.
      leave_out: analyses that do not fit the models.
      more: (name, analysis, its fields) of further ones.
      probe_fit: fields of the stage that fits probes.
      zeros: pattern of a dot and the names of the models that have zeros behind a ReLU.
    """
    config = configs.measurement()
    config.data = configs.source("scenes", size=40, split="test", **SCENES)
    config.group = 20
    fields = {**FIELDS, **fields}
    for name in analyses.names():
        if not name.startswith("probe") and name not in leave_out:
            config.analyses[name] = configs.analysis(name, **fields.get(name, {}))
    for name, analysis, own in more:
        config.analyses[name] = configs.analysis(analysis, **own)
    config.stages.fit = configs.stage(data=configs.source("scenes", size=60, **SCENES))
    config.stages.fit.analyses.probe = configs.analysis("probe_fit", **probe_fit)
    config.analyses.probe = configs.analysis("probe", penalties=(1.0, 100.0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"skip_ratio{zeros}: a skip, a branch or their sum")
        return workdir, vitcnn.analyze(config, workdir, models=models, progress=False)


def page_with_every_figure(measured, folder):
    """Writes the report, checks that each Result has a figure, and returns the text of the page."""
    workdir, found = measured
    page = report.write(report.read(workdir), folder).read_text()
    drawn = {path.name for path in (folder / "figures").glob("*.png")}
    for name in found:
        assert any(figure.startswith(name.split(".")[0]) for figure in drawn), name
    return page
