"""Oracles of the backbones: closed-form counts from the papers' tables, and the nets in NumPy float64."""

from __future__ import annotations

import numpy as np

RESNET_UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 101: (3, 4, 23, 3),
                152: (3, 8, 36, 3), 200: (6, 26, 60, 6)}  # fmt: skip

# MobileFaceNet, arXiv:1804.07573, table 1 at 112x112: input size, input channels, t, c, n, s.
MOBILE_ROWS = ((56, 64, 2, 64, 5, 2), (28, 64, 4, 128, 1, 2), (14, 128, 2, 128, 6, 1), (14, 128, 4, 128, 1, 2),
               (7, 128, 2, 128, 2, 1))  # fmt: skip


def resnet_parameters(depth: int, embedding_size: int = 512, size: int = 112, width: int = 64) -> int:
    """Convolutions without bias, BN 2 per channel, PReLU 1 per channel, fc with bias. Statistics are not counted."""
    total = 27 * width + 3 * width  # stem: 3x3x3 conv, BN, PReLU
    before = width
    for stage, units in enumerate(RESNET_UNITS[depth]):
        w = width * 2**stage
        total += 2 * before + 9 * before * w + 9 * w * w + 5 * w  # BN1, conv1, conv2, BN2 + PReLU + BN3
        total += before * w + 2 * w  # shortcut
        total += (units - 1) * (18 * w * w + 7 * w)
        before = w
    last = size // 16
    return total + 2 * before + before * last * last * embedding_size + embedding_size + 2 * embedding_size


def resnet_multiply_adds(depth: int, embedding_size: int = 512, size: int = 112, width: int = 64) -> int:
    """Of convolutions and fc; size divisible by 16."""
    total, before, area = 27 * width * size**2, width, size**2
    for stage, units in enumerate(RESNET_UNITS[depth]):
        w = width * 2**stage
        total += 9 * before * w * area  # conv1 works before the stride
        area //= 4
        total += (9 * w * w + before * w) * area + (units - 1) * 18 * w * w * area
        before = w
    return total + before * area * embedding_size


def mobilefacenet_counts(embedding_size: int) -> dict[str, int]:
    """convolution weights, BN channels, PReLU slopes and multiply-adds at 112x112, row by row."""
    counts = {"weights": 27 * 64 + 9 * 64, "channels": 128, "slopes": 128, "multiply_adds": (27 + 9) * 64 * 56**2}
    for size, before, t, c, n, s in MOBILE_ROWS:
        for unit in range(n):
            stride, hidden, after = (s if unit == 0 else 1), t * before, size // (s if unit == 0 else 1)
            expand, depthwise, project = before * hidden, 9 * hidden, hidden * c
            counts["weights"] += expand + depthwise + project
            counts["multiply_adds"] += expand * size**2 + (depthwise + project) * after**2
            counts["channels"] += 2 * hidden + c
            counts["slopes"] += 2 * hidden
            size, before = size // stride, c
    counts["weights"] += 128 * 512 + 49 * 512 + 512 * embedding_size
    counts["multiply_adds"] += 128 * 512 * 49 + 49 * 512 + 512 * embedding_size
    counts["channels"] += 512 + 512 + embedding_size
    counts["slopes"] += 512
    return counts


# --- the nets in float64; ``weights`` maps the names without "backbone." to arrays; training = batch statistics ------


def conv(x: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0, groups: int = 1) -> np.ndarray:
    """x [B, C, H, W], weight [O, C / groups, h, w] -> [B, O, H', W'], as a sum over the kernel's places."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out, _, h, w = weight.shape
    rows, cols = (x.shape[2] - h) // stride + 1, (x.shape[3] - w) // stride + 1
    y = np.zeros((x.shape[0], groups, out // groups, rows, cols))
    grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    kernel = weight.reshape(groups, out // groups, -1, h, w)
    for i in range(h):
        for j in range(w):
            part = grouped[:, :, :, i : i + stride * rows : stride, j : j + stride * cols : stride]
            y += np.einsum("bgchw,goc->bgohw", part, kernel[:, :, :, i, j])
    return y.reshape(x.shape[0], out, rows, cols)


class NumpyNet:
    """The layers by name. epsilon: what is added to variances. projected: every first unit of a stage has weights on
    its shortcut; otherwise those whose channels change."""

    def __init__(self, weights: dict[str, np.ndarray], training: bool, epsilon: float = 2e-5, projected: bool = True):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.training, self.epsilon, self.projected = training, epsilon, projected

    def conv(self, x, name, **shape):
        return conv(x, self.weights[f"{name}.weight"], **shape)

    def bn(self, x, name):
        axes = (0, 2, 3) if x.ndim == 4 else (0,)
        mean, variance = self.weights[f"{name}.running_mean"], self.weights[f"{name}.running_variance"]
        if self.training:
            mean, variance = x.mean(axes), x.var(axes)
        wide = (slice(None), None, None) if x.ndim == 4 else slice(None)
        scale = self.weights[f"{name}.weight"] / np.sqrt(variance + self.epsilon)
        return (x - mean[wide]) * scale[wide] + self.weights[f"{name}.bias"][wide]

    def prelu(self, x, name):
        return np.where(x > 0, x, x * self.weights[f"{name}.weight"][:, None, None])

    def excited(self, y, name):
        """y, times a weight for each channel where there are such weights."""
        if f"{name}.reduce.weight" not in self.weights:
            return y
        means = np.maximum(y.mean((2, 3)) @ self.weights[f"{name}.reduce.weight"][:, :, 0, 0].T, 0)
        logits = means @ self.weights[f"{name}.expand.weight"][:, :, 0, 0].T
        return y / (1 + np.exp(-logits))[:, :, None, None]

    def resnet(self, x, depth: int):
        x = self.prelu(self.bn(self.conv(x, "stem.conv", padding=1), "stem.bn"), "stem.prelu")
        for stage, units in enumerate(RESNET_UNITS[depth], start=1):
            for unit in range(units):
                at, stride = f"stage{stage}.unit{unit}", 2 if unit == 0 else 1
                y = self.conv(self.bn(x, f"{at}.bn1"), f"{at}.conv1", padding=1)
                y = self.prelu(self.bn(y, f"{at}.bn2"), f"{at}.prelu")
                y = self.bn(self.conv(y, f"{at}.conv2", stride=stride, padding=1), f"{at}.bn3")
                y = self.excited(y, f"{at}.se")
                if unit == 0 and stage == 1 and not self.projected:
                    x = x[:, :, ::2, ::2]
                elif unit == 0:
                    x = self.bn(self.conv(x, f"{at}.shortcut.conv", stride=2), f"{at}.shortcut.bn")
                x = x + y
        x = self.bn(x, "head.bn").reshape(x.shape[0], -1)
        x = x @ self.weights["head.fc.weight"] + self.weights["head.fc.bias"]
        return self.bn(x, "head.feature_bn")

    def conv_bn(self, x, name, **shape):
        return self.bn(self.conv(x, f"{name}.conv", **shape), f"{name}.bn")

    def conv_bn_prelu(self, x, name, **shape):
        return self.prelu(self.conv_bn(x, name, **shape), f"{name}.prelu")

    def mobilefacenet(self, x):
        x = self.conv_bn_prelu(x, "stem", stride=2, padding=1)
        x = self.conv_bn_prelu(x, "stem_depthwise", padding=1, groups=x.shape[1])
        for row, (_, _, t, _, n, s) in enumerate(MOBILE_ROWS, start=1):
            for unit in range(n):
                at, stride, hidden = f"stage{row}.unit{unit}", s if unit == 0 else 1, t * x.shape[1]
                y = self.conv_bn_prelu(x, f"{at}.expand")
                y = self.conv_bn_prelu(y, f"{at}.depthwise", stride=stride, padding=1, groups=hidden)
                y = self.conv_bn(y, f"{at}.project")
                x = x + y if stride == 1 and x.shape == y.shape else y
        x = self.conv_bn_prelu(x, "expand")
        x = self.conv_bn(x, "global_depthwise", groups=x.shape[1])
        return self.conv_bn(x, "feature")[:, :, 0, 0]

    def wide_mobilefacenet(self, x, scale: int, bottlenecks):
        """arcface_torch's mbf (scale 2) and mbf_large (scale 4); the hidden channels are there as numbers."""
        x = self.conv_bn_prelu(x, "stem", stride=2, padding=1)
        if scale == 2:
            x = self.conv_bn_prelu(x, "stem_grouped", padding=1, groups=x.shape[1] // 2)
        for stage, count in enumerate(bottlenecks, start=1):
            for unit in range(count):
                at, stride = f"stage{stage}.unit{unit}", 2 if unit == 0 and stage > 1 else 1
                y = self.conv_bn_prelu(x, f"{at}.expand")
                y = self.conv_bn_prelu(y, f"{at}.depthwise", stride=stride, padding=1, groups=y.shape[1])
                y = self.conv_bn(y, f"{at}.project")
                x = x + y if stride == 1 else y
        x = self.conv_bn_prelu(x, "expand")
        x = self.conv_bn(x, "global_depthwise", groups=x.shape[1])[:, :, 0, 0]
        return self.bn(x @ self.weights["head.fc.weight"], "head.feature_bn")
