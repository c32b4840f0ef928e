"""Paddle 2.6 before zlib ends in a crash; plsc says so before it does."""

from __future__ import annotations

import subprocess
import sys

import paddle
import pytest

ORDER = """import paddle, sys
print('zlib' in sys.modules or 'zlib' in sys.builtin_module_names)
import plsc
print('imported')
"""
USE = "\nimport zlib, numpy\nnumpy.random.default_rng(0)\nassert zlib.decompress(zlib.compress(b'x')) == b'x'"


def test_the_wrong_order_is_refused_where_it_matters():
    result = subprocess.run([sys.executable, "-c", ORDER], capture_output=True, text=True)
    loaded = result.stdout.splitlines()[0] == "True"
    if paddle.__version__.startswith("2.") and not loaded:
        assert "import plsc, or zlib, before paddle" in result.stderr and result.returncode == 1
    else:
        assert result.stdout.splitlines()[-1] == "imported", result.stderr


@pytest.mark.parametrize("first", ["import plsc\nimport paddle", "import zlib\nimport paddle\nimport plsc"])
def test_the_right_order_works(first):
    subprocess.run([sys.executable, "-c", first + USE], check=True, capture_output=True)
