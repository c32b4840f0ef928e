"""The nets of bench.py train in PyTorch: one JSON line with the seconds of the fastest step. Needs torch, not PLSC."""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from torch import nn

UNITS = {"ResNet10": (1, 1, 1, 1), "ResNet50": (3, 4, 14, 3)}
BOTTLENECKS = ((2, 1, 5, 2), (4, 2, 1, 2), (2, 2, 6, 1), (4, 2, 1, 2), (2, 2, 2, 1))
EPSILON = 2e-5


class Residual(nn.Module):
    """``shortcut``(x) + ``body``(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPSILON)


def resnet(name: str, width: int, size: int, embedding: int) -> nn.Module:
    """plsc.models.resnet."""
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), norm(width), nn.PReLU(width)]
    channels = width
    for stage, units in enumerate(UNITS[name]):
        for unit in range(units):
            out, stride = width * 2**stage, 2 if unit == 0 else 1
            layers.append(unit_of_resnet(channels, out, stride))
            channels, size = out, (size + stride - 1) // stride
    layers += [norm(channels), nn.Flatten(), nn.Linear(channels * size * size, embedding)]
    return nn.Sequential(*layers, nn.BatchNorm1d(embedding, eps=EPSILON))


def unit_of_resnet(channels: int, out: int, stride: int) -> nn.Module:
    body = nn.Sequential(
        norm(channels), nn.Conv2d(channels, out, 3, 1, 1, bias=False), norm(out), nn.PReLU(out),
        nn.Conv2d(out, out, 3, stride, 1, bias=False), norm(out),
    )  # fmt: skip
    if stride == 1 and channels == out:
        return Residual(body, nn.Identity())
    return Residual(body, nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out)))


def mobilefacenet(width: int, size: int, embedding: int) -> nn.Module:
    """plsc.models.mobilefacenet."""
    layers = [*conv(3, width, 3, 2, 1), *conv(width, width, 3, 1, 1, width)]
    channels, size = width, (size + 1) // 2
    for expansion, multiple, repeats, first_stride in BOTTLENECKS:
        for unit in range(repeats):
            hidden, out, stride = expansion * channels, width * multiple, first_stride if unit == 0 else 1
            body = nn.Sequential(
                *conv(channels, hidden, 1), *conv(hidden, hidden, 3, stride, 1, hidden), *conv(hidden, out, 1)[:2]
            )
            layers.append(Residual(body, nn.Identity()) if stride == 1 and channels == out else body)
            channels, size = out, (size + stride - 1) // stride
    last = 8 * width
    layers += [*conv(channels, last, 1), *conv(last, last, size, 1, 0, last)[:2], *conv(last, embedding, 1)[:2]]
    return nn.Sequential(*layers, nn.Flatten())


def conv(channels: int, out: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False)
    return [layer, norm(out), nn.PReLU(out)]


def main(case: dict) -> None:
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    model = case["model"]
    width, size, embedding = model.get("base_width", 64), model["image_shape"][1], model["embedding_size"]
    if model["name"] == "MobileFaceNet":
        net = mobilefacenet(width, size, embedding)
    else:
        net = resnet(model["name"], width, size, embedding)
    image = torch.rand(case["batch"], *model["image_shape"]) * 2 - 1
    gradient = torch.randn(case["batch"], embedding) * 1e-3
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    seconds, cpu = [], []
    for _ in range(case["steps"] + 2):
        started, cpu_began = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        net(image).backward(gradient)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_began)
    print(json.dumps({
        "seconds": round(min(seconds[2:]), 4),
        "cpu": round(min(cpu[2:]), 4),
        "peak_gb": round(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9, 2),
        "torch": torch.__version__,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }))  # fmt: skip


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
