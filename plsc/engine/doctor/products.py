"""Matrix products: right, and with how many bits (TF32)?"""

from __future__ import annotations

import numpy as np
import paddle

from plsc.engine.doctor.findings import verdict
from plsc.engine.doctor.rank import Built, Place

SIZE = 256
# Of sums of 256 products of numbers around 1, relative to their standard deviation of 16: float32 is off by some 1e-7,
# TF32, whose factors have 11 bits, by some 3e-4
FLOAT32, TF32 = 1e-5, 3e-3


def products(place: Place, multiply=paddle.matmul) -> tuple[str, str, str]:
    """float32 products against NumPy float64."""
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal((SIZE, SIZE)).astype("float32") for name in "xy"}
    (got,) = Built(place, feed, lambda inputs: [multiply(inputs["x"], inputs["y"])]).run()
    exact = feed["x"].astype("float64") @ feed["y"].astype("float64")
    error = np.abs(got - exact).max() / np.sqrt(SIZE)
    if error < FLOAT32:
        return verdict(True, f"float32, error {error:.0e}", "")
    if error < TF32 and place.build.on_gpu:
        seen = f"TF32, error {error:.0e}: cosines are off by up to 7e-5 (docs/gpu_program.md)"
        return verdict(True, f"{seen}; NVIDIA_TF32_OVERRIDE=0 turns it off", "")
    advice = "use another release of cuBLAS or Paddle, or test the memory"
    return verdict(False, f"error {error:.0e}: wrong products", advice)
