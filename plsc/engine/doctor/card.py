"""The wheel of Paddle against the GPUs of this machine and their driver."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import paddle

from plsc.engine.doctor.findings import NOT_HERE, PASS, verdict
from plsc.extras import install
from plsc.files import safe_open

DRIVER = "/proc/driver/nvidia/version"
# the compute capabilities that wheels have kernels for (docs/gpu.md); None: not known, whatever the GPU is
WHEELS = {"2.6.2": ((6, 1), (7, 0), (7, 5), (8, 0), (8, 6))}


@dataclass(frozen=True)
class Card:
    """``driver``: its version, "" for none. ``wheel_cuda``: of a Paddle for GPUs, "" for one for CPUs.
    ``capabilities``: of the GPUs that Paddle finds, as (8, 0)."""

    paddle: str
    driver: str
    wheel_cuda: str
    capabilities: tuple[tuple[int, int], ...] = ()


def read_card() -> Card:
    """That of this process."""
    has_cuda = paddle.is_compiled_with_cuda()
    count = paddle.device.cuda.device_count() if has_cuda else 0
    capabilities = tuple(tuple(paddle.device.cuda.get_device_capability(number)) for number in range(count))
    return Card(paddle.__version__, _driver(DRIVER), str(paddle.version.cuda()) if has_cuda else "", capabilities)


def _driver(path: str) -> str:
    if not os.path.exists(path):
        return ""
    with safe_open.open_text(path, safe_open.SETTINGS, "ascii", "replace") as file:
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", file.read())
    return found[1] if found else "of unknown version"


def card(found: Card) -> tuple[str, str, str]:
    """Whether this Paddle can use the GPUs of this machine."""
    wheel = f"Paddle {found.paddle} for {'CUDA ' + found.wheel_cuda if found.wheel_cuda else 'CPUs'}"
    if not found.wheel_cuda and not found.driver:
        return NOT_HERE, f"{wheel}, and no NVIDIA driver: runs use CPUs", ""
    if not found.wheel_cuda:
        seen = f"{wheel}, and an NVIDIA driver {found.driver}: runs use CPUs"
        return verdict(False, seen, f"{install('gpu')} to use the GPU; CUDA_VISIBLE_DEVICES= hides it")
    if not found.capabilities:
        seen = f"{wheel} finds no GPU (NVIDIA driver: {found.driver or 'none'})"
        advice = f"install a driver for CUDA {found.wheel_cuda}, check CUDA_VISIBLE_DEVICES, or {install('cpu')}"
        return verdict(False, seen, advice)
    cards = ", ".join(f"{major}.{minor}" for major, minor in found.capabilities)
    seen = f"{wheel}, driver {found.driver}, {len(found.capabilities)} GPU(s) of compute capability {cards}"
    known = WHEELS.get(found.paddle)
    missing = [one for one in found.capabilities if known is not None and one not in known]
    if missing:
        # kernels of a minor version run on later ones of the same major version
        missing = [one for one in missing if not any(one[0] == have[0] and one[1] >= have[1] for have in known)]
    if missing:
        lacks = f"this wheel has no kernels for {missing[0][0]}.{missing[0][1]}"
        return verdict(False, seen, f"{lacks}: install Paddle 3 from Paddle's own channel")
    return PASS, seen, ""
