"""How fast numbers come from the host to the device and back."""

from __future__ import annotations

import numpy as np

from plsc.engine.doctor.findings import NOT_HERE, verdict
from plsc.engine.doctor.rank import Built, Place

NUMBERS = 2**24  # 67 MB
SLOWEST = 5e8  # bytes a second: 128 images of 112 x 112 take 40 ms


def bandwidth(place: Place, slowest: float = SLOWEST) -> tuple[str, str, str]:
    """Fed and fetched by the executor, as images are."""
    if not place.build.on_gpu:
        return NOT_HERE, "on CPUs the host is the device", ""
    feed = {"x": np.ones(NUMBERS, np.float32)}
    there = Built(place, feed, lambda inputs: [inputs["x"][:1] + 1.0]).seconds()
    both = Built(place, feed, lambda inputs: [inputs["x"] + 1.0]).seconds()
    speeds = 4 * NUMBERS / there, 4 * NUMBERS / max(both - there, 1e-9)
    seen = f"to the GPU {speeds[0] / 1e9:.1f} GB/s, back {speeds[1] / 1e9:.1f} GB/s"
    advice = "the GPU's slot has few lanes (nvidia-smi -q: Link Width), or other processes copy"
    return verdict(min(speeds) >= slowest, seen, advice)
