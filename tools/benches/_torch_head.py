"""The classifier of bench.py head in PyTorch, for comparison: one JSON line. Needs torch, not PLSC.

Partial FC (An et al. 2021) as it is usually written: the rows of the sample are indexed out of the weight, autograd
makes a dense gradient, and SGD with momentum and weight decay goes over all rows. That is the same work as PLSC's: rows
that are not sampled decay and coast. "tuned" uses the fused SGD; bench.py then tells glibc to keep big blocks.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from torch.nn import functional


def sample(label: torch.Tensor, classes: int, count: int) -> torch.Tensor:
    """``count`` rows with those of ``label`` among them: the largest of random numbers, where those of labels are 2."""
    if count >= classes:
        return torch.arange(classes)
    chance = torch.rand(classes)
    chance[label] = 2.0
    return torch.topk(chance, count)[1].sort()[0]


def loss_of(feature, weight, label, index, scale: float, margin: float):
    """ArcFace with the rows ``index``."""
    rows = weight if len(index) == len(weight) else weight[index]
    cosine = functional.normalize(feature) @ functional.normalize(rows).T
    place = torch.searchsorted(index, label)
    every = torch.arange(len(label))
    own = cosine[every, place].clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    logits = cosine.clone()
    logits[every, place] = torch.cos(torch.arccos(own) + margin)
    return functional.cross_entropy(scale * logits, place)


def main(case: dict) -> None:
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    classes, embedding = case["classes"], case["embedding"]
    weight = torch.nn.Parameter(torch.randn(classes, embedding) * 0.01)
    fused = {"fused": True} if case["kernels"] == "torch tuned" else {}
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9, weight_decay=5e-4, **fused)
    seconds = []
    for _ in range(case["steps"] + 2):
        feature = torch.randn(case["batch"], embedding, requires_grad=True)
        label = torch.randint(0, classes, (case["batch"],))
        started = time.perf_counter()
        index = sample(label, classes, max(1, int(case["ratio"] * classes)))
        optimizer.zero_grad()
        loss_of(feature, weight, label, index, 64.0, 0.5).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({
        "seconds": round(sorted(seconds[2:])[case["steps"] // 2], 4),
        "peak_gb": round(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9, 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
