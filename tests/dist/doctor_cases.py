"""The checks of plsc doctor on the ranks, as on GPUs (tests/kernels) and as on CPUs; see test_doctor.py."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import paddle

from plsc.backend import collectives, ops
from plsc.backend.cpu import run_in_order
from plsc.classifiers import sampling
from plsc.engine.doctor import bandwidth, kernels, products, ring, step, timing
from plsc.engine.doctor.findings import Check
from plsc.engine.doctor.rank import Place
from plsc.engine.program.session import Session
from plsc.parallel.group import connected_group
from tests.kernels.library import gpu_kernels

TINY = {"name": "ResNet10", "image_shape": [3, 16, 16], "base_width": 4, "embedding_size": 16}
SMALL = {"GPU": (500, 0.2, 8), "CPU": (500, 0.2, 8)}


def run_all(env, made):
    """{device: {case: Finding}}."""
    run_in_order()
    group = connected_group(env)
    found = {}
    with gpu_kernels(made, env, group):
        for device in ("cpu", "gpu"):
            place = Place(env, replace(env, device=device), group)
            found[device] = {name: _find(name, patches, call, place) for name, (patches, call) in CASES.items()}
    return found


def _find(name, patches, call, place):
    with mock.patch.multiple(timing, SIZES=SMALL), mock.patch.multiple(step, BATCH={"GPU": 2, "CPU": 2}, MODEL=TINY):
        made = [mock.patch.object(target, attribute, change(getattr(target, attribute)))
                for target, attribute, change in patches]  # fmt: skip
        for patch in made:
            patch.start()
        try:
            return Check(name, lambda: call(place)).find()
        finally:
            for patch in made:
                patch.stop()


def _nan_loss(original):
    return lambda self, *arguments: {**original(self, *arguments), "loss": float("nan")}


def _own_loss(original):
    """Each rank another one."""
    return lambda self, *arguments: {**original(self, *arguments), "loss": float(self.env.rank)}


# what is right, and what is broken: (patches, the check)
CASES = {
    "ring": ([], lambda place: ring.ring(place, 1.0)),
    "ring: slow": ([], lambda place: ring.ring(place, 1e15)),
    "ring: the own part only": (
        [(collectives, "all_reduce", lambda f: lambda value, *a: paddle.assign(value))], ring.ring),
    "ring: gathered in another order": (
        [(collectives, "all_gather", lambda f: lambda value, n: paddle.flip(f(value, n), [0]))], ring.ring),
    "products": ([], products.products),
    "products: of few bits": ([], lambda place: products.products(
        place, lambda x, y: paddle.matmul(paddle.round(x * 64.0) / 64.0, y))),
    "host to device": ([], lambda place: bandwidth.bandwidth(place, 1.0)),
    "host to device: slow": ([], lambda place: bandwidth.bandwidth(place, 1e15)),
    "kernels paddle": ([], lambda place: kernels.kernels(place, "paddle", 1e-4)),
    "kernels paddle: another margin": (
        [(ops, "margin_cross_entropy", lambda f: lambda c, y, margins, *a: f(c, y, (1.0, 0.4, 0.0), *a))],
        lambda place: kernels.kernels(place, "paddle")),
    "kernels plsc": ([], lambda place: kernels.kernels(place, "plsc", 1e-4)),
    "kernels plsc: another sample": (
        [(sampling, "sample_rows", lambda f: lambda b, q, *a: (f(b, q, *a)[0], f(b, q, *a)[1] * 0))],
        lambda place: kernels.kernels(place, "plsc")),
    "step": ([], lambda place: step.step(place, 0.0)),
    "step: slow": ([], lambda place: step.step(place, 1e9)),
    "step: no number": ([(Session, "step", _nan_loss)], lambda place: step.step(place, 0.0)),
    "step: other losses": ([(Session, "step", _own_loss)], lambda place: step.step(place, 0.0)),
    "step: raises": ([(Session, "start", lambda f: lambda *a: 1 // 0)], lambda place: step.step(place, 0.0)),
    "timing": ([], timing.timing),
    "timing: plsc is faster": (
        [], lambda place: timing.timing(place, lambda _, which: {"paddle": 0.3, "plsc": 0.1}[which])),
    "timing: paddle is faster": (
        [], lambda place: timing.timing(place, lambda _, which: {"paddle": 0.1, "plsc": 0.3}[which])),
}  # fmt: skip
