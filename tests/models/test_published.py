"""Parameters and multiply-adds of the built-in nets: against an independent count, and against published figures.

Sources of the figures, all for 112x112:
- OMZ: github.com/openvinotoolkit/open_model_zoo, models/public/index.md of 2020, the MXNet models LResNet34E-IR,
  LResNet50E-IR, LResNet100E-IR and MobileFaceNet of InsightFace's model zoo: MParams, GFLOPs = 2 x multiply-adds.
- TORCH: arcface_torch's iresnet as counted by its users: 24,025,600 / 34,139,328 / 43,590,848 / 65,156,160
  parameters and 2.63 / 4.48 / 6.33 / 12.13 G multiply-adds; github.com/gaunernst/timm-face gives the released ONNX nets
  43,590,976 and 65,156,288.
- PAPER: MobileFaceNets, arXiv:1804.07573: 0.99 million parameters, 221 million multiply-adds (the 439 M found
  elsewhere are FLOPs, two for each multiply-add).
- INSIGHTFACE: recognition/arcface_torch of insightface at 7fadd420. The FLOPs of README.md (multiply-adds; those of
  ViT with q k^T and its product with v). Parameters and multiply-adds of convolutions and linear layers: its own
  classes, and IR_SE_50 and IR_SE_101 of mk-minchul/AdaFace's net.py, counted with hooks of torch 2.14.1.
No figure is published for the basic-unit ResNet101, 152 and 200: they have the independent count alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import paddle
import pytest

from plsc.models import build_model
from tests.models.model_programs import build, parameters
from tests.reference.backbones import RESNET_UNITS, mobilefacenet_counts, resnet_multiply_adds, resnet_parameters
from tests.reference.vit import SIZES, vit_counts

DEPTHS = (18, 34, 50, 100, 101, 152, 200)
# depth: (TORCH parameters, TORCH G multiply-adds, OMZ M parameters, OMZ GFLOPs)
PUBLISHED = {
    18: (24_025_600, 2.63, None, None),
    34: (34_139_328, 4.48, 34.129, 8.934),
    50: (43_590_848, 6.33, 43.576, 12.637),
    100: (65_156_160, 12.13, 65.131, 24.209),
}


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


def count(monkeypatch, **options):
    """(parameters without running statistics, multiply-adds of convolutions and fc, feature shape) as built."""
    multiply_adds = []

    def watch(layer_type, area):
        forward = layer_type.forward

        def watched(self, x):
            y = forward(self, x)
            multiply_adds.append(int(np.prod(self.weight.shape)) * area(y))
            return y

        monkeypatch.setattr(layer_type, "forward", watched)

    watch(paddle.nn.Conv2D, lambda y: y.shape[2] * y.shape[3])
    watch(paddle.nn.Linear, lambda y: int(np.prod(y.shape[1:-1])))
    model = build_model(**options)
    main, _, feature = build(model, model.image_shape, is_train=True)
    shapes = parameters(main)
    total = sum(int(np.prod(shape)) for name, shape in shapes.items() if ".running_" not in name)
    return total, sum(multiply_adds), list(feature.shape)


@pytest.mark.parametrize("depth", DEPTHS)
def test_resnet_counts(monkeypatch, depth):
    total, multiply_adds, shape = count(monkeypatch, name=f"ResNet{depth}")
    assert total == resnet_parameters(depth)
    assert multiply_adds == resnet_multiply_adds(depth)
    assert shape == [-1, 512]
    if depth in PUBLISHED:
        torch_parameters, torch_multiply_adds, omz_parameters, omz_flops = PUBLISHED[depth]
        assert total == torch_parameters
        # The tool behind the figures also counts BN and PReLU, 0.8 % of the smallest net; ours is below, never above.
        assert -1e-2 < multiply_adds / 1e9 / torch_multiply_adds - 1 < 0
        if omz_parameters is not None:
            # OMZ counts converted nets, where the scale of a BN after a convolution has become part of its weights.
            assert total / 1e6 == pytest.approx(omz_parameters, rel=1e-3)
            assert -2e-3 < 2 * multiply_adds / 1e9 / omz_flops - 1 < 0


def test_narrow_resnet_counts(monkeypatch):
    total, multiply_adds, shape = count(
        monkeypatch, name="ResNet18", base_width=16, embedding_size=128, image_shape=[3, 64, 64]
    )
    assert total == resnet_parameters(18, embedding_size=128, size=64, width=16)
    assert multiply_adds == resnet_multiply_adds(18, embedding_size=128, size=64, width=16)
    assert shape == [-1, 128]


def test_mobilefacenet_counts(monkeypatch):
    total, multiply_adds, shape = count(monkeypatch, name="MobileFaceNet", embedding_size=128)
    table = mobilefacenet_counts(128)
    assert total == table["weights"] + 2 * table["channels"] + table["slopes"]
    assert multiply_adds == table["multiply_adds"]
    assert shape == [-1, 128]
    # The published 0.99 M and OMZ's 0.993 M are the net with each BN's scale folded into its convolution.
    assert (total - table["channels"]) / 1e6 == pytest.approx(0.993, abs=5e-4)
    assert multiply_adds / 1e6 == pytest.approx(221, abs=0.5)
    assert -2e-2 < 2 * multiply_adds / 1e9 / 0.449 - 1 < 0  # OMZ counts PReLU and sums too, 1.6 %


# name: (parameters, multiply-adds of convolutions and linear layers, README's G FLOPs)
INSIGHTFACE = {
    "WideMobileFaceNet": (2_059_520, 437_520_896, 0.45), "LargeMobileFaceNet": (6_314_880, 1_816_482_816, None),
    "ViT-T": (19_137_792, 1_377_480_704, 1.5), "ViT-S": (76_023_296, 5_491_744_768, 5.7),
    "ViT-B": (113_833_472, 10_927_562_752, 11.4), "ViT-L": (255_684_352, 24_573_382_656, 25.3),
}  # fmt: skip


@pytest.mark.parametrize("name", INSIGHTFACE)
def test_counts_of_arcface_torchs_nets(monkeypatch, name):
    expected, expected_multiply_adds, flops = INSIGHTFACE[name]
    unmasked = {"mask_ratio": 0.0} if name in SIZES else {}
    total, multiply_adds, shape = count(monkeypatch, name=name, **unmasked)
    assert (total, multiply_adds, shape) == (expected, expected_multiply_adds, [-1, 512])
    if name in SIZES:
        width, blocks = SIZES[name]
        all_parameters, all_multiply_adds = vit_counts(width, blocks, 144, 9)
        assert total == all_parameters
        assert multiply_adds == all_multiply_adds - blocks * 2 * 144 * 144 * width
        assert all_multiply_adds / 1e9 == pytest.approx(flops, abs=0.05)
    elif flops is not None:  # theirs counts BN and PReLU too
        assert -4e-2 < multiply_adds / 1e9 / flops - 1 < 0


@pytest.mark.parametrize("patch, count_", [(8, 196), (16, 49)])
def test_counts_of_other_patches(monkeypatch, patch, count_):
    total, multiply_adds, _ = count(monkeypatch, name="ViT-T", patch_size=patch, mask_ratio=0.0)
    parameters_, all_multiply_adds = vit_counts(256, 12, count_, patch)
    assert (total, multiply_adds + 12 * 2 * count_ * count_ * 256) == (parameters_, all_multiply_adds)


@pytest.mark.parametrize("depth, published", [(50, 43_808_320), (100, 65_523_136)])
def test_se_resnet_counts(monkeypatch, depth, published):
    """AdaFace's last batch norm has no scale and shift; ours has 2 * 512 more."""
    total, _, _ = count(monkeypatch, name=f"SEResNet{depth}", projection="channels")
    assert total - 2 * 512 == published
    projected, multiply_adds, _ = count(monkeypatch, name=f"SEResNet{depth}")
    units = RESNET_UNITS[depth]
    excitation = sum(n * 2 * (64 * 2**stage) ** 2 // 16 for stage, n in enumerate(units))
    assert projected == resnet_parameters(depth) + excitation
    assert multiply_adds == resnet_multiply_adds(depth) + excitation


def test_the_documented_table():
    text = (Path(__file__).parents[2] / "docs" / "add_a_backbone.md").read_text()
    others = re.findall(r"\| (\w+MobileFaceNet|ViT-\w) \|[^|]*\| ([\d,]+) \| ([\d.]+) G \|", text)
    assert [name for name, *_ in others] == list(INSIGHTFACE)
    se = resnet_parameters(50) + 2 * (3 * 64**2 + 4 * 128**2 + 14 * 256**2 + 3 * 512**2) // 16
    assert f"SEResNet50 has {se:,} parameters" in text
    for name, total, multiply_adds in others:
        blocks, width = SIZES.get(name, (0, 0))[::-1]
        counted = INSIGHTFACE[name][1] + blocks * 2 * 144 * 144 * width
        assert (total, multiply_adds) == (f"{INSIGHTFACE[name][0]:,}", f"{counted / 1e9:.3f}")
    rows = re.findall(r"\| ResNet(\d+) \| ([\d ]+) \| ([\d,]+) \| ([\d.]+) G \|", text)
    assert [int(depth) for depth, *_ in rows] == list(DEPTHS)
    for depth, units, total, multiply_adds in rows:
        assert tuple(map(int, units.split())) == RESNET_UNITS[int(depth)]
        assert total == f"{resnet_parameters(int(depth)):,}"
        assert multiply_adds == f"{resnet_multiply_adds(int(depth)) / 1e9:.3f}"
