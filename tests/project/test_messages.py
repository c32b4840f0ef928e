"""The messages that the documentation quotes, in its tables of symptoms, are in the code word for word."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.project.docs_kit import ROOT

PAGES = {"ranks.md": "## Troubleshooting", "faq.md": "## Messages"}
OF_OTHERS = ("FieldDescriptor has no attribute 'label'",)  # a message of protobuf


def quoted(page: str, heading: str) -> list[str]:
    """The code in the first column of the table below a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:]
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]


@functools.cache
def messages() -> tuple[str, ...]:
    """All texts of the code, with "..." for each value in them."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "plsc").rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return *plain, *(with_values(node) for node in nodes if isinstance(node, ast.JoinedStr))


def with_values(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)


def is_said(quote: str) -> bool:
    pattern = re.compile(".*".join(map(re.escape, quote.split("..."))))
    return any(pattern.search(message) for message in messages())


@pytest.mark.parametrize("page", PAGES)
def test_quoted_messages_are_those_of_the_code(page):
    quotes = quoted(page, PAGES[page])
    assert len(quotes) > 5
    missing = [quote for quote in quotes if quote not in OF_OTHERS and not is_said(quote)]
    assert not missing, f"docs/{page} quotes what no code says: {missing}"


def test_what_nobody_says_is_found():
    assert is_said("rank 0 cannot listen at ..., the address of the run")
    assert not is_said("rank 0 cannot listen on ..., the address of the run")
