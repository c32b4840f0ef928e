"""plsc list: what the registries hold, as a table and as JSON, a user's own too."""

from __future__ import annotations

import json

import pytest

from plsc.registry import REGISTRIES
from tests import tool_kit

PLUGIN = '''
from plsc.models import BaseModel, register_model


@register_model("ListedNet", source="Nobody, 2026. On lists.")
class ListedNet(BaseModel):
    """A model that is listed."""

    def build_network(self, input, label, is_train=True):
        return input
'''


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_kind_is_told_completely(kind):
    told = json.loads(tool_kit.plsc("list", kind, "--json").stdout)
    assert told == json.loads(tool_kit.plsc("list", "--json", kind).stdout)
    assert [entry["name"] for entry in told] == REGISTRIES[kind].names() and told
    table = tool_kit.plsc("list", kind).stdout
    words = table.split()
    for entry in told:
        assert entry["summary"], f"{kind} {entry['name']}: has no docstring"
        for text in (entry["name"], *entry["summary"].split(), *entry["source"].split()):
            assert text in words
    assert max(map(len, table.splitlines())) <= 100


def test_all_kinds():
    told = json.loads(tool_kit.plsc("list", "--json").stdout)
    assert list(told) == list(REGISTRIES)
    table = tool_kit.plsc("list").stdout
    assert all(f"{kind}:\n" in table for kind in REGISTRIES)


def test_a_users_own_are_listed(tmp_path):
    """In a process of its own: what is registered stays."""
    import os
    import subprocess
    import sys

    (tmp_path / "mine.py").write_text(PLUGIN)
    root = str(tool_kit.TOOLS.parent)
    command = [sys.executable, "-m", "plsc", "list", "models", "-o", "plugins=[mine.py]"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.split()[0] == "ListedNet")
    assert lines[place].endswith("  A model that is listed.") and lines[place + 1].strip() == "Nobody, 2026. On lists."


def test_json_to_a_file(tmp_path):
    assert tool_kit.plsc("list", "models", "--json", tmp_path / "x.json").stdout
    assert json.loads((tmp_path / "x.json").read_text())
    done = tool_kit.plsc("list", "models", "--json", tmp_path / "no" / "x.json")
    assert done.returncode == 1 and "does not exist; create it first" in done.stderr
