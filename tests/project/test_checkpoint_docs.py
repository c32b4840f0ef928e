"""The page about the format is true: its reader reads, and its tables name what is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.checkpoint.checkpoint_kit import class_arrays, same_arrays, save_as

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoint_format.md").read_text(encoding="utf-8")


def test_the_reader_on_the_page_reads(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = save_as(tmp_path, 7, 10, 3)
    subprocess.run([sys.executable, "-c", script, path, str(tmp_path / "out.npz")], check=True, timeout=60)
    with np.load(tmp_path / "out.npz") as found:
        same_arrays(dict(found), class_arrays(10))


def test_the_table_names_every_field(tmp_path):
    section = PAGE[PAGE.index("## manifest.json") : PAGE.index("### The record of the data")]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    with open(Path(save_as(tmp_path, 7, 10, 1)) / "manifest.json", encoding="utf-8") as file:
        assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(json.load(file))
