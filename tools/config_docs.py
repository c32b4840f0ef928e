"""Generate docs/configuration.md from the schema: python tools/config_docs.py [FILE]"""

from __future__ import annotations

import json
import pathlib
import sys

from plsc.config import SECTIONS, Option, fields

_HEAD = """# Configuration

This file is generated from the schema (`plsc/config/schema`) by `python tools/config_docs.py`; do not edit it.

A YAML file sets the keys that differ from the defaults, with sections as nested mappings; `-o section.key=value` on the
command line and `Entry.set("section.key", value)` use the dotted name. The setters are methods of `Entry`. Numbers in
brackets are ranges: `(0, 1]` excludes 0 and includes 1.
"""


def document() -> str:
    """Return the page."""
    parts = [_HEAD, *_table("Top level", "", "")]
    for name, doc in SECTIONS.items():
        parts += _table(f"{name}", doc, f"{name}.")
    return "\n".join(parts)


def _table(title: str, doc: str, prefix: str) -> list[str]:
    rows = [entry for entry in fields() if entry.key.rpartition(".")[0] + "." == (prefix or ".")]
    head = [
        "| key | type | default | unit | allowed | meaning | setter |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [f"## {title}\n", *([doc + "\n"] if doc else []), *head, *map(_row, rows), ""]


def _row(entry: Option) -> str:
    kind = entry.kind + (" or null" if entry.optional else "")
    default = f"`{json.dumps(entry.default)}`"
    setter = f"`{entry.setter}`" if entry.setter else ""
    doc = f"{entry.doc} Ranks may differ: {entry.per_rank}." if entry.per_rank else entry.doc
    cells = [f"`{entry.key}`", kind, default, entry.unit, entry.allowed, doc, setter]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write docs/configuration.md, or the given file."""
    home = pathlib.Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else home
    target.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
