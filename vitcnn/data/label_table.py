"""Label table: a CSV file that lists images, the numbers of their classes, and names of these.

Comma, semicolon and tab separate columns; the text is UTF-8, or in the encoding that its first
bytes declare. Accents are the same in both Unicode forms (NFC and NFD).
"""

from __future__ import annotations

import codecs
import csv
import io
import pathlib
import re
import warnings
from collections.abc import Iterable, Sequence

from vitcnn.data.classes import nfc
from vitcnn.lookup import nearest
from vitcnn.storage import Path

NAME_COLUMNS = ("wnid", "synset", "class", "name")  # the first that there is names the classes


def read(table: Path, files: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Returns the label of each file, and the names of the classes, () if the table has none.

    Raises:
      ValueError: the table cannot be read, or does not fit the files; the message names the line.
    """
    rows, naming = _rows(table)
    by_name: dict[str, list[str]] = {}
    for file in files:  # macOS writes accents in another Unicode form than most editors
        by_name.setdefault(nfc(file), []).append(file)
    present = set(files)
    numbers: dict[str, int] = {}
    names: dict[int, str] = {}
    absent = []
    for line, file, label, name in rows:
        alike = by_name.get(nfc(file), [])
        if file not in present and len(alike) == 1:
            (file,) = alike
        if file in numbers:
            raise ValueError(f"{str(table)!r} line {line}: {file!r} is listed twice")
        if not re.fullmatch(r"[+-]?[0-9]+(\.0*)?", label):
            raise ValueError(
                f"{str(table)!r} line {line}: label {label!r} of {file!r} is not a whole number; "
                f"names of classes go into a column {NAME_COLUMNS[-1]!r}"
            )
        numbers[file] = int(label.partition(".")[0])
        if numbers[file] < 0:
            raise ValueError(f"{str(table)!r} line {line}: label {label!r} is below 0")
        if naming and names.setdefault(numbers[file], name) != name:
            warnings.warn(
                f"{str(table)!r} line {line}: label {label} is called {name!r} here and "
                f"{names[numbers[file]]!r} before: the column {naming!r} does not name "
                "classes, and is left out",
                stacklevel=3,
            )
            naming = ""
        if file not in present:
            absent.append(file)
    if absent:
        raise ValueError(
            f"{str(table)!r} lists {len(absent)} images that are not in the folder: "
            f"{some(absent)}; {nearest(absent[0], files)}"
        )
    unlisted = [file for file in files if file not in numbers]
    if unlisted:
        raise ValueError(
            f"{str(table)!r} has no label for {len(unlisted)} images in the folder: "
            f"{some(unlisted)}"
        )
    of_files = [numbers[file] for file in files]
    class_names = tuple(nfc(names.get(k, "")) for k in range(max(of_files) + 1))
    return of_files, class_names if naming else ()


def _rows(table: Path) -> tuple[list[tuple[int, str, str, str]], str]:
    """Returns (line, file, label, name) of each row, and the column that names the classes.

    Raises:
      ValueError: the encoding is unknown, a column is missing, or a row is too short or too long.
    """
    lines = io.StringIO(_text(table), newline="")
    header = lines.readline()
    delimiter = max(",;\t", key=header.count)  # spreadsheets write all three
    lines.seek(0)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        repeated = {column for column in columns if column and columns.count(column) > 1}
        if not {"file", "label"} <= set(columns) or repeated & {"file", "label"}:
            listed = ", ".join(columns) or "none"
            raise ValueError(f"{str(table)!r} has the columns {listed}: expected file and label")
        naming = next((column for column in NAME_COLUMNS if column in columns), "")
        rows = []
        for row in reader:
            if not any(field.strip() for field in row):  # a blank line
                continue
            if len(row) != len(columns):
                raise ValueError(
                    f"{str(table)!r} line {reader.line_num} has {len(row)} fields, expected "
                    f"{len(columns)} ({', '.join(columns)}): quote a field that holds {delimiter!r}"
                )
            values = dict(zip(columns, row, strict=True))
            file = pathlib.PurePath(values["file"].strip()).as_posix()
            name = values[naming].strip() if naming else ""
            rows.append((reader.line_num, file, values["label"].strip(), name))
    except csv.Error as error:
        raise ValueError(
            f"{str(table)!r} line {reader.line_num} cannot be read as CSV: {error}"
        ) from error
    if not rows:
        raise ValueError(f"{str(table)!r} has no rows below its header")
    return rows, naming


def _text(table: Path) -> str:
    """Returns the text of a file in UTF-8, or in the encoding that its first bytes declare.

    Raises:
      ValueError: the file is in another encoding.
    """
    content = table.read_bytes()
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    # The mark of UTF-16 begins that of UTF-32, so the longer marks come first.
    encoding = next((marks[mark] for mark in marks if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        wide = "UTF-16" if b"\0" in content[:100] else "cp1252 or Latin-1"
        raise ValueError(
            f"{str(table)!r} is not {encoding.removesuffix('-sig').upper()} (byte "
            f"0x{content[error.start]:02x} at {error.start}); it may be {wide}: save it as UTF-8, "
            "in Excel as 'CSV UTF-8', or with iconv -f cp1252 -t utf-8"
        ) from None
    if "\0" in text:
        raise ValueError(f"{str(table)!r} holds zero bytes, as UTF-16 does: save it as UTF-8")
    return text


def some(names: Iterable[str], count: int = 5) -> str:
    """Returns the first names of a list, for a message."""
    names = list(names)
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
