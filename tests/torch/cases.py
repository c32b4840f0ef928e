"""What is held against torch: nets, sizes, files. Known to both sides, so neither torch nor Paddle is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SIDE = 112
ARCFACE, ADAFACE, MAGFACE = "arcface_torch", "adaface", "magface"


@dataclass(frozen=True)
class Case:
    """net: a class of nets.py, sizes: its parameters. project: whose images enter it, and how. file: what is imported.
    ours: the model of PLSC that it must become."""

    net: str
    sizes: dict[str, Any]
    ours: str
    project: str = ARCFACE
    file: str = "model.pt"
    options: dict[str, Any] = field(default_factory=dict)


def _iresnet(depth: int, width: int, file: str = "model.pt") -> Case:
    return Case("IResNet", {"depth": depth, "width": width}, f"ResNet{depth}", file=file)


def _adaface(depth: int, width: int, squeezed: bool) -> Case:
    sizes = {"depth": depth, "width": width, "squeezed": squeezed}
    return Case("AdaFaceNet", sizes, f"{'SE' if squeezed else ''}ResNet{depth}", ADAFACE, "epoch=25.ckpt")


# With the published widths where that takes a second; the others have a quarter of them. Embeddings of 512 numbers.
CASES = {
    "r18": _iresnet(18, 64),
    "r34": _iresnet(34, 16, "backbone.pth"),
    "r50": _iresnet(50, 16, "checkpoint_gpu_0.pt"),
    "r100": _iresnet(100, 16),
    "r200": _iresnet(200, 16),
    "mbf": Case("MobileFaceNet", {"width": 64, "large": False}, "WideMobileFaceNet"),
    "mbf_large": Case("MobileFaceNet", {"width": 16, "large": True}, "LargeMobileFaceNet"),
    "vit_t": Case("ViT", {"width": 256, "depth": 12}, "ViT-T"),
    "ir_50": _adaface(50, 16, False),
    "ir_se_50": _adaface(50, 16, True),
    "magface": Case("IResNet", {"depth": 18, "width": 16, "epsilon": 2e-5}, "ResNet18", MAGFACE, "magface.pth"),
}
# Exported and embedded by the Predictor; the others by the evaluation program, with which each export is compared.
PREDICTED = ("r50", "mbf", "ir_se_50", "magface")
# Exported for torch. MagFace's input is another than that of the nets that have these names, so it is refused; r200
# would take long and shows no more than r100.
RETURNED = tuple(name for name, case in CASES.items() if case.project != MAGFACE and name != "r200")
# Trained by PLSC, with another epsilon than theirs: what export --to torch makes of them is read into these nets.
TRAINED = {
    "trained": Case("IResNet", {"depth": 18, "width": 8, "embedding": 16}, "ResNet18"),
    "trained_se": Case("AdaFaceNet", {"depth": 18, "width": 16, "embedding": 16, "squeezed": True}, "SEResNet18",
                       ADAFACE, options={"projection": "channels"}),
}  # fmt: skip
# Exported by torch.onnx; on small images, as an export takes as long for small nets as for large ones.
GRAPH_SIDE = 32
_SMALL = {"width": 4, "embedding": 6}
GRAPHS = {
    "iresnet": Case("IResNet", {**_SMALL, "depth": 18}, "ResNet18"),
    "mbf": Case("MobileFaceNet", {**_SMALL, "large": False}, "WideMobileFaceNet"),
    "vit": Case("ViT", {"width": 16, "embedding": 6, "depth": 2, "patch": 8}, "ViT-T"),
    "ir": Case("AdaFaceNet", {**_SMALL, "depth": 18}, "ResNet18", ADAFACE),
    "ir_se": Case("AdaFaceNet", {"width": 16, "embedding": 6, "depth": 18, "squeezed": True}, "SEResNet18", ADAFACE),
}
# How they are exported: arguments of torch.onnx.export.
EXPORTS: dict[str, dict[str, Any]] = {
    "11": {"dynamo": False, "opset_version": 11},
    "11 unfolded": {"dynamo": False, "opset_version": 11, "do_constant_folding": False},
    "17": {"dynamo": False, "opset_version": 17},
    "dynamo": {"dynamo": True, "external_data": False},
}
DYNAMIC = "dynamo dynamic"  # of DYNAMIC_GRAPHS, for any number of images
DYNAMIC_GRAPHS = ("iresnet", "ir_se")
REFUSED_EXPORTS: dict[str, dict[str, Any]] = {
    "dynamo unoptimised": {"dynamo": True, "external_data": False, "optimize": False},
    "dynamo external": {"dynamo": True, "external_data": True},
}
# Ways to save the weights of one small net
FORMS = ("parameters", "half", "bfloat16", "data parallel", "views")
REFUSED_FORMS = ("legacy", "module")


def pictures(count: int = 2, side: int = SIDE, seed: int = 7) -> np.ndarray:
    """uint8 RGB [count, side, side, 3]: squares of colour with noise, so that images differ as photographs do."""
    draw = np.random.Generator(np.random.Philox(key=[seed, side]))
    cell = -(-side // 7)
    coarse = draw.integers(0, 256, (count, 7, 7, 3)).repeat(cell, 1).repeat(cell, 2)[:, :side, :side]
    return np.clip(coarse + draw.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8)
