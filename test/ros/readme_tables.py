"""The tables of parameters in README.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
HEAD = "| parameter | default | meaning |"
LIVE_MARK = "(live) "


@dataclass(frozen=True, order=True)
class Row:
    """A parameter as it is described.

    Attributes:
        name: the parameter's.
        default: as it would be written in a parameter file.
        live: whether the meaning starts with the mark of what can be changed at any time.
    """

    name: str
    default: str
    live: bool


def parameter_rows(heading: str) -> list[Row]:
    """The rows of the one table of parameters under a heading of the second level."""
    (section,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL
    )
    (table,) = re.findall(
        rf"^{re.escape(HEAD)}\n\|---\|---\|---\|\n((?:\|.*\n)+)", section, re.MULTILINE
    )
    return [_row(line) for line in table.splitlines()]


def _row(line: str) -> Row:
    cells = re.fullmatch(r"\| `([^`]+)` \| `([^`]+)` \| ([^|]+) \|", line)
    assert cells is not None, f"not a row of {HEAD!r}: {line}"
    name, default, meaning = cells.groups()
    live = meaning.startswith(LIVE_MARK)
    assert LIVE_MARK.strip() not in meaning[len(LIVE_MARK) * live :], f"marked elsewhere: {line}"
    return Row(name, default, live)


def as_written(value: bool | int | float | str) -> str:
    """A parameter's value in a parameter file."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'
