"""The tests of this folder read programs that only the wheel paddlepaddle-gpu 2.6 can build; no GPU is needed."""

from __future__ import annotations

import paddle
import pytest

pytest.register_assert_rewrite("tests.gpu.graph", *(f"tests.gpu.{name}_checks" for name in ("head", "update", "half")))

collect_ignore_glob = [] if paddle.is_compiled_with_cuda() and paddle.__version__.startswith("2.6.") else ["test_*.py"]
