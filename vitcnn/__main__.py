"""vitcnn: how vision transformers and CNNs see, measured.

    python -m vitcnn                  this list
    python -m vitcnn models           networks, and the weights that load into them
    python -m vitcnn analyze ...      measures models: scripts/analyze.py
    python -m vitcnn train ...        trains a network: scripts/train.py
    python -m vitcnn ablate ...       trains and compares networks: scripts/ablate.py
    python -m vitcnn report ...       draws Results: scripts/report.py

--help after analyze, train, ablate or report says more.
"""

from __future__ import annotations

import ast
import runpy
import sys
import textwrap
from collections.abc import Iterable, Sequence
from types import ModuleType

import vitcnn
from vitcnn import analyses, claims, lookup, models
from vitcnn.checkpoints import formats
from vitcnn.config import files
from vitcnn.data import augment, sources
from vitcnn.similarity import measures

SCRIPTS = ("analyze", "train", "ablate", "report")
WIDTH = 100


def main(arguments: Sequence[str]) -> None:
    """Prints a list, or runs a script.

    Args:
      arguments: of the command line, without the name of the program.

    Raises:
      ValueError: there is no such command; the message gives the nearest.
    """
    command, *rest = arguments or [""]
    if command in ("", "-h", "--help"):
        print(overview())
    elif command == "models":
        print(networks())
    else:
        lookup.check_name("command", command, ("models", *SCRIPTS))
        script = str(files.shipped("scripts") / f"{command}.py")
        sys.argv = [script, *rest]
        runpy.run_path(script, run_name="__main__")


def overview() -> str:
    """Returns what there is: commands, families, sources, analyses, measures, claims, configs."""
    configs = {name: _first_sentence(_docstring(name)) for name in files.names()}
    return "\n\n".join(
        (
            f"{__doc__.strip()}\n\nThis is version {vitcnn.__version__}.",
            _section("Model families (config.models.NAME = model(FAMILY, ...))", _files(models)),
            _section("Data sources (config.data = source(...))", _files(sources)),
            _section("Augmentations (config.augment of a training)", _files(augment)),
            _section("Analyses (config.analyses.NAME = analysis(...))", _files(analyses)),
            _section(
                "Measures of similarity (vitcnn.Comparison, the analysis similarity)",
                {name: measure.title for name, measure in measures.registered().items()},
            ),
            _section("Claims of the paper (the report judges them)", _claims()),
            _section("Configs (--config=...)", configs),
        )
    )


def networks() -> str:
    """Returns the families with their variants, and the formats of weights that load into each."""
    readers = [lookup.find("format", formats, name) for name in lookup.names_in(formats)]
    blocks = []
    for family, title in _files(models).items():
        file = lookup.find("model family", models, family)
        loads = [_first_sentence(f.__doc__) for f in readers if family == f.FAMILY]
        variants = _wrapped("variants: " + ", ".join(file.VARIANTS))
        weights = [_wrapped(f"- {text}") for text in loads]
        blocks.append("\n".join((f"{family}: {title}", variants, "  weights:", *weights)))
    ending = (
        "Weights are a path, hf:OWNER/REPOSITORY or https://...#sha256=...\n"
        "The folder of a training run loads into the network that it trained."
    )
    return "\n\n".join((*blocks, ending))


def _files(package: ModuleType) -> dict[str, str]:
    """Returns name of each plugin of a folder -> the first sentence of its docstring."""
    return {
        name: _first_sentence(lookup.find("file", package, name).__doc__)
        for name in lookup.names_in(package)
    }


def _claims() -> dict[str, str]:
    """Returns number and file of each claim -> its statement, by number."""
    files = {name: lookup.find("claim", claims, name) for name in lookup.names_in(claims)}
    in_order = sorted(files, key=lambda name: files[name].NUMBER)
    return {f"{files[name].NUMBER} {name}": files[name].STATEMENT for name in in_order}


def _docstring(config: str) -> str:
    return ast.get_docstring(ast.parse(files.find(config).read_text())) or ""


def _first_sentence(docstring: str | None) -> str:
    return " ".join((docstring or "").strip().split("\n\n")[0].split("\n")).strip()


def _section(heading: str, entries: dict[str, str]) -> str:
    width = max(map(len, entries))
    lines: Iterable[str] = (
        textwrap.fill(
            f"{name:{width}}  {text}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent=" " * (width + 4),
        )
        for name, text in entries.items()
    )
    return "\n".join((f"{heading}:", *lines))


def _wrapped(text: str) -> str:
    indents = {"initial_indent": "  ", "subsequent_indent": "    "}
    return textwrap.fill(text, WIDTH, **indents, break_on_hyphens=False)  # of names of networks


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
