"""Benchmarks of speed and memory: bench.py BENCH [options]. The benchmarks are the files of tools/benches.

Prints the machine and the versions, a JSON line per case and a table. Each case runs in a separate process. All cases
run once per round, and rounds are repeated, so that a temporary load of the machine does not affect one case only; the
best round of each case is reported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

BENCHES = Path(__file__).resolve().parent / "benches"
DEFAULT_BEST = ("seconds", "min")


def main() -> None:
    benches = {
        path.stem: importlib.import_module(f"benches.{path.stem}")
        for path in sorted(BENCHES.glob("*.py"))
        if not path.stem.startswith("_")
    }
    options = parse(benches)
    bench = benches[options.command]
    if options.case:
        print(json.dumps(bench.run(json.loads(options.case))))
        return
    print(json.dumps(machine()), flush=True)
    given = [{**case, "threads": options.threads} for case in bench.cases(options)]
    best = run_rounds(options.command, bench, given, options.rounds)
    for result in best:
        print(json.dumps({"command": options.command, **result}))
    print_table(best)


def parse(benches: dict[str, ModuleType]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, bench in benches.items():
        command = commands.add_parser(name, help=bench.HELP, description=bench.__doc__)
        bench.add_options(command)
        cores = len(os.sched_getaffinity(0))
        command.add_argument(
            "--threads", type=int, default=cores, help=f"threads per process (default: {cores}, the cores)"
        )
        command.add_argument("--rounds", type=int, default=2)
        command.add_argument("--case", help=argparse.SUPPRESS)  # run one case, given as JSON, in this process
    return parser.parse_args()


def machine() -> dict:
    """Describe the machine and the versions."""
    import paddle

    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    return {
        "machine": platform.machine(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "numpy": np.__version__,
    }


def run_rounds(name: str, bench: ModuleType, cases: list[dict], rounds: int) -> list[dict]:
    """Return the best result of each case."""
    key, direction = getattr(bench, "BEST", DEFAULT_BEST)
    results = [[run_case(name, case) for case in cases] for _ in range(rounds)]
    choose = {"min": min, "max": max}[direction]
    return [choose(of_case, key=lambda result: result[key]) for of_case in zip(*results)]


def run_case(name: str, case: dict) -> dict:
    arguments = [sys.executable, __file__, name, "--case", json.dumps(case)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(case["threads"]), "GLOG_minloglevel": "2"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"case {case} failed:\n{done.stderr[-2000:]}")
    return {**case, **json.loads(done.stdout.splitlines()[-1])}


def print_table(results: list[dict]) -> None:
    """Print a table of the values that differ between cases; the JSON lines have all values."""
    names = list(dict.fromkeys(name for result in results for name in result))
    varied = [name for name in names if len({json.dumps(result.get(name)) for result in results}) > 1]
    shown = names if len(results) == 1 else varied
    rows = [shown] + [[str(result.get(name, "")) for name in shown] for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(shown))]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths)))


if __name__ == "__main__":
    main()
