"""Reading the documentation: its fenced blocks, why one is not run, its links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# `<!-- not run: reason -->` on the line above a block; another reason is refused.
REASONS = {
    "makes an environment, downloads packages",
    "takes minutes",
    "needs a GPU",
    "needs several machines",
}
SHELLS = ("shell", "bash", "sh", "console")
LANGUAGES = (*SHELLS, "python", "yaml", "text", "json", "")
_FENCE = re.compile(r"^```(\S*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``line`` is that of its first line of text; ``reason`` why it is not run, or None."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks in order. Fails on a fence that is not closed."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        opening = _FENCE.match(lines[number].strip())
        if opening is None:
            number += 1
            continue
        ends = [at for at in range(number + 1, len(lines)) if lines[at].strip() == "```"]
        assert ends, f"{page.name}:{number + 1}: this block is not closed"
        reason = _NOT_RUN.match(lines[number - 1].strip()) if number else None
        text = "\n".join(lines[number + 1 : ends[0]]) + "\n"
        found.append(Block(page, number + 2, opening[1], text, reason[1] if reason else None))
        number = ends[0] + 1
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block; comments left out, continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def links(page: Path) -> list[str]:
    """The targets of all links that point into this repository; code is left out."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
