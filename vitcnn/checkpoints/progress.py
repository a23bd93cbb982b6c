"""A bar with the rate, in a terminal, while gigabytes are downloaded or read."""

from __future__ import annotations

import tqdm

_LONG = 1_000_000_000  # bytes from which reading takes long enough for a bar


def of_bytes(name: str, total: int | None, before: int = 0, least: int = 0) -> tqdm.tqdm:
    """Returns a bar of bytes, which writes nothing where the output is no terminal.

    Args:
      name: of the file.
      total: bytes that it has; None if nobody knows.
      before: bytes that are there already.
      least: bytes below which there is no bar.
    """
    is_short = total is not None and total < least
    return tqdm.tqdm(
        desc=name,
        total=total,
        initial=before,
        unit="B",
        unit_scale=True,
        disable=is_short or None,  # None: where the output is no terminal
    )


def of_reading(name: str, total: int) -> tqdm.tqdm:
    """Returns the bar of reading a file, which is hidden for one below a gigabyte."""
    return of_bytes(name, total, least=_LONG)
