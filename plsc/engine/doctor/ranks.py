"""The checks that ranks make together, each written to a file when it is done."""

from __future__ import annotations

import dataclasses
import json

from plsc.config.schema.classifier import PADDLE, PLSC
from plsc.engine.doctor.bandwidth import bandwidth
from plsc.engine.doctor.findings import FAIL, Check, Finding, worst
from plsc.engine.doctor.kernels import kernels
from plsc.engine.doctor.products import products
from plsc.engine.doctor.rank import Place
from plsc.engine.doctor.ring import ring
from plsc.engine.doctor.step import step
from plsc.engine.doctor.timing import timing
from plsc.files import safe_open
from plsc.terminal import print_stderr

FAILED = "plsc doctor:"  # begins the line of a rank on stderr
NAMES = ("ring", "products", "host to device", "kernels paddle", "kernels plsc", "ResNet50", "which kernels")


def rank_checks(place: Place) -> list[Check]:
    """In the order of NAMES."""
    runs = (
        lambda: ring(place), lambda: products(place), lambda: bandwidth(place), lambda: kernels(place, PADDLE),
        lambda: kernels(place, PLSC), lambda: step(place), lambda: timing(place),
    )  # fmt: skip
    return [Check(name, run) for name, run in zip(NAMES, runs)]


def run_checks(place: Place, file: str) -> None:
    """Rank 0 appends a line of JSON to ``file`` for each check. A rank says at once what has failed on it: the others
    may wait for it in a collective, and are ended by who started them."""
    for check in rank_checks(place):
        found = check.find()
        if found.status == FAIL:
            print_stderr(f"{FAILED} {check.name}: {found.seen}")
        every = [Finding(**values) for values in place.group.all_gather(dataclasses.asdict(found))]
        if place.env.rank == 0:
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(dataclasses.asdict(worst(every))) + "\n")


def read_findings(file: str, reason: str, more: str = "") -> list[Finding]:
    """Those of ``file``, and one for the check that did not end, with the ``reason``. ``more``: begins its advice."""
    with safe_open.open_text(file, safe_open.LIST) as lines:
        found = [Finding(**json.loads(line)) for line in lines]
    if len(found) < len(NAMES):
        name = NAMES[len(found)]
        later = f"; not run: {', '.join(NAMES[len(found) + 1 :])}" * (len(found) + 1 < len(NAMES))
        advice = f"{more}NCCL_DEBUG=INFO and GLOG_minloglevel=0 show more; see docs/gpu.md"
        found.append(Finding(name, FAIL, f"did not end: {reason}{later}", advice))
    return found
