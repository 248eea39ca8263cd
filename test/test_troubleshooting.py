"""The troubleshooting page quotes messages that the code really writes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "|---" not in line]
QUOTES = sorted({quote for row in ROWS for quote in re.findall(r'"([^"]+)"', row.split("|")[1])})


def texts() -> Iterator[str]:
    """Every text in the code, … for what is filled in."""
    for path in (ROOT / "mosam_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                yield "".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"\{\d\}x\{\d\}", "…", node.value)


TEXTS = list(texts())
PREFIXES = (
    "not configured: ",
    "not activated, and not configured any more: ",
    "frame ignored: ",
    "no positions: ",
    "no positions for … s: ",
    "…: ",
)
"""Of messages that another part of the code completes."""


def test_there_are_quotes():
    assert len(QUOTES) > 15


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_one_of_the_codes(quote):
    for prefix in PREFIXES:
        if quote.startswith(prefix):
            quote = quote.removeprefix(prefix)
    pieces = [re.escape(piece) for piece in quote.strip("…").split("…")]
    pattern = re.compile(".*".join(pieces), re.DOTALL)
    assert any(pattern.search(text) for text in TEXTS), quote


def test_every_row_has_a_symptom_a_cause_and_a_cure():
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3 and all(cells), row
