"""The most classes whose classifier trains on one rank within a limit of memory, found by trying.

A try runs `bench.py head` for three steps in a process of its own, which is ended when its peak memory passes the
limit. The next number of classes is chosen along the line through the last two peaks, until the limit is met to a
hundredth. ``share``: the classes found over those that the limit would hold with weight and momentum alone, 4 KB a
class at embedding 512 (in float32; with 16 bits the share may pass 1). The process without classes counts against the
limit as well; ``share_of_the_rest`` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benches import head

HELP = "the most classes that train within a limit of memory"
BEST = ("classes", "max")
STATE = 2 * 4 * 512  # bytes of a class: weight and momentum
CLOSE = 0.01  # of the limit
MOST_TRIES = 8


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--limit-gb", type=float, default=2.0, help="peak memory of the process, 1e9 bytes")
    command.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.01])
    command.add_argument("--storage", default="float32", help="of weight and momentum, see bench.py head")
    command.add_argument("--batch", type=int, default=64, help="images of a step")


def cases(options: argparse.Namespace) -> list[dict]:
    shared = {"limit_gb": options.limit_gb, "storage": options.storage, "batch": options.batch}
    return [{"ratio": ratio, **shared} for ratio in options.ratios]


def run(case: dict) -> dict:
    limit = case["limit_gb"] * 1e9
    process = peak_of(case, 1000, limit)
    if process is None:
        sys.exit(f"limit_gb={case['limit_gb']}: Paddle alone takes more; give a larger --limit-gb")
    tried: list[int] = []

    def measure(classes: int) -> float | None:
        tried.append(classes)
        return peak_of(case, classes, limit)

    classes, peak = search(measure, limit, process)
    return {
        "classes": classes,
        "peak_gb": round(peak / 1e9, 3),
        "process_gb": round(process / 1e9, 3),
        "share": round(classes * STATE / limit, 3),
        "share_of_the_rest": round(classes * STATE / (limit - process), 3),
        "tries": len(tried),
    }


def search(measure, limit: float, process: float) -> tuple[int, float]:
    """(the most classes that fitted, their peak). ``measure(classes)``: peak bytes, None where it is too big."""
    best, smallest_too_big, slope = (1000, process), None, STATE * 1.3
    for _ in range(MOST_TRIES):
        classes = int(best[0] + (limit * (1 - CLOSE / 2) - best[1]) / slope)
        if smallest_too_big is not None and classes >= smallest_too_big:
            classes = (best[0] + smallest_too_big) // 2
        peak = measure(classes)
        if peak is None:
            smallest_too_big = classes
            continue
        if classes > best[0]:
            slope, best = max((peak - best[1]) / (classes - best[0]), STATE), (classes, peak)
        if best[1] >= limit * (1 - CLOSE) or (smallest_too_big or 2 * best[0]) - best[0] < CLOSE * best[0]:
            break
    return best


def peak_of(case: dict, classes: int, limit: float) -> float | None:
    """Peak bytes of a process that trains ``classes``; None if it passed the limit or got no memory."""
    parser = argparse.ArgumentParser()
    head.add_options(parser)
    words = ["--classes", classes, "--ratios", case["ratio"], "--batch", case["batch"], "--steps", 1]
    words += ["--storage", case["storage"]]
    (wanted,) = head.cases(parser.parse_args([str(word) for word in words]))
    wanted["threads"] = case["threads"]
    bench = Path(__file__).resolve().parents[1] / "bench.py"
    command = [sys.executable, str(bench), "head", "--case", json.dumps(wanted)]
    process, highest = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE), 0
    try:
        while (peak := peak_so_far(process.pid)) is not None:
            highest = max(highest, peak)
            if peak > limit:
                return None
            time.sleep(0.01)
        status = process.wait()
    finally:
        process.kill()
        _, error = process.communicate()
    if status:
        if b"MemoryError" in error or b"ResourceExhausted" in error or status < 0:
            return None
        sys.exit(f"{classes} classes failed:\n{error.decode(errors='replace')[-2000:]}")
    return float(highest)  # not ru_maxrss, which counts the memory that this process had when it started the other


def peak_so_far(pid: int) -> int | None:
    """The largest resident size of a process in bytes; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else None  # a process that has ended and was not waited for has no memory
