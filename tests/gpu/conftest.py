"""The tests of this folder read programs that only the wheel paddlepaddle-gpu 2.6 can build; no GPU is needed."""

from __future__ import annotations

import paddle
import pytest

READERS = ("graph", "updates", "head_checks", "update_checks", "half_checks")
pytest.register_assert_rewrite(*(f"tests.gpu.{name}" for name in READERS))

collect_ignore_glob = [] if paddle.is_compiled_with_cuda() and paddle.__version__.startswith("2.6.") else ["test_*.py"]
