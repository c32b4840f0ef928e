"""The ring of the ranks, NCCL or Gloo: does it sum, gather in order, and how fast is it?"""

from __future__ import annotations

import numpy as np
import paddle

from plsc.backend import collectives
from plsc.engine.doctor.findings import NOT_HERE, verdict
from plsc.engine.doctor.rank import Built, Place

NUMBERS = 6_250_000  # 25 MB, a bucket of gradients
SLOWEST = {"GPU": 1e9, "CPU": 2e7}  # bytes a second: below, the sums of a ResNet50 take 0.2 s, or 9 s on CPUs


def ring(place: Place, slowest: float | None = None) -> tuple[str, str, str]:
    """``slowest``: bytes a second that are enough; None for those of the device."""
    ranks, rank = place.env.world_size, place.env.rank
    if ranks == 1:
        return NOT_HERE, "one rank (--ranks N or --devices 0,1,... for several)", ""
    kind = "NCCL" if place.build.on_gpu else "Gloo"
    feed = {"x": np.arange(12, dtype=np.float32) + 100 * rank}
    total, most, gathered, scattered = Built(place, feed, lambda inputs: [
        collectives.all_reduce(inputs["x"], ranks), collectives.all_reduce(inputs["x"], ranks, collectives.MAX),
        collectives.all_gather(inputs["x"], ranks),
        collectives.reduce_scatter(collectives.all_gather(inputs["x"], ranks), rank, ranks, place.build.on_gpu),
    ]).run()  # fmt: skip
    every = [np.arange(12, dtype=np.float32) + 100 * number for number in range(ranks)]
    right = {
        "all-reduce (sum)": (total, sum(every)), "all-reduce (max)": (most, every[-1]),
        "all-gather": (gathered, np.concatenate(every)), "reduce-scatter": (scattered, every[rank] * ranks),
    }  # fmt: skip
    wrong = [name for name, (got, expected) in right.items() if not np.array_equal(got, expected)]
    if wrong:
        seen = f"{kind} over {ranks} ranks: wrong {', '.join(wrong)}"
        return verdict(False, seen, "use another release of NCCL or Paddle")
    large = {"x": np.ones(NUMBERS, np.float32)}
    seconds = Built(place, large, lambda inputs: [paddle.sum(collectives.all_reduce(inputs["x"], ranks))]).seconds()
    speed, enough = 4 * NUMBERS / seconds, SLOWEST[place.name] if slowest is None else slowest
    seen = f"{kind} over {ranks} ranks: sums are right; {speed / 1e9:.2f} GB/s for 25 MB ({1e3 * seconds:.0f} ms)"
    advice = (
        "NCCL_DEBUG=INFO shows the connections, which should be P2P or InfiniBand; NCCL_SOCKET_IFNAME chooses a network"
        if place.build.on_gpu else "other processes use the cores, or ranks talk over a slow network"
    )  # fmt: skip
    return verdict(speed >= enough, seen, advice)
