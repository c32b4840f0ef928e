"""Files and directories are put in their place by plsc/files/atomic.py alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Who may by himself, and why.
ALLOWED = {
    ("plsc/backend/compiler.py", "cache.rename"): "plsc.files.private_directory: inside of a directory that is open",
    ("plsc/checkpoint/links.py", "os.link"): "a second name of a file, which stays where it is",
    ("plsc/checkpoint/lock.py", "os.fsync"): "the lock's file, which is kept open and never renamed",
}
OF_OS = {"rename", "renames", "replace", "link", "fsync", "fdatasync"}


def renames(source: str) -> list[str]:
    """Every call that gives a file another name or flushes one: "os.replace", "path.rename", "shutil.move", ..."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name in OF_OS | {"move"}]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called, name = ast.unparse(node.func), node.func.attr
        owner = called.rpartition(".")[0]
        if (owner == "os" and name in OF_OS) or called == "shutil.move":
            found.append(called)
        elif name in ("rename", "hardlink_to", "link_to") and owner not in ("os", "atomic"):
            found.append(called)
        elif name == "replace" and owner != "os" and len(node.args) == 1 and not node.keywords:
            found.append(called)  # Path.replace; that of a string takes two, dataclasses.replace names its fields
    return found


def test_nobody_else_renames_or_flushes():
    found = {
        (path.relative_to(ROOT).as_posix(), call)
        for path in sorted((ROOT / "plsc").rglob("*.py"))
        if path.parent != ROOT / "plsc/files"
        for call in renames(path.read_text(encoding="utf-8"))
    }
    assert found - set(ALLOWED) == set(), "use plsc.files.atomic, or say here why not"
    assert set(ALLOWED) - found == set(), "is allowed and not done any more"


@pytest.mark.parametrize("line", [
    "os.rename(a, b)", "os.replace(a, b)", "shutil.move(a, b)", "path.rename(b)", "Path(a).replace(b)", "os.link(a, b)",
    "os.fsync(handle)", "from os import replace", "from shutil import move",
])  # fmt: skip
def test_a_planted_rename_is_found(line):
    assert len(renames(line)) == 1


@pytest.mark.parametrize("line", [
    "text.replace('a', 'b')", "replace(config, rank=0)", "dataclasses.replace(config, rank=0)", "atomic.rename(a, b)",
])  # fmt: skip
def test_what_renames_nothing_is_not_found(line):
    assert renames(line) == []
