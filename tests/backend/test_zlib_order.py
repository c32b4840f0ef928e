"""Paddle 2.6 before zlib ends in a crash; plsc says so before it does."""

from __future__ import annotations

import subprocess
import sys

import paddle
import pytest

USE = "\nimport zlib, numpy\nnumpy.random.default_rng(0)\nassert zlib.decompress(zlib.compress(b'x')) == b'x'"


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize("first", [
    "import paddle", "import paddle, zlib", "import paddle, numpy", "import numpy, paddle", "import PIL.Image, paddle",
])  # fmt: skip
def test_an_order_that_breaks_zlib_is_refused_and_no_other(first):
    broken = run(first + USE).returncode != 0  # a segmentation fault, or a zlib.error
    result = run(first + "\nimport plsc\nprint('imported')")
    if broken:
        assert paddle.__version__.startswith("2.") and result.returncode == 1
        assert result.stderr.splitlines()[-1].endswith("import plsc, or zlib, before paddle")
    else:
        assert result.stdout.splitlines()[-1] == "imported", result.stderr


@pytest.mark.parametrize("first", ["import plsc\nimport paddle", "import zlib\nimport paddle\nimport plsc"])
def test_the_right_order_works(first):
    assert run(first + USE).returncode == 0
