"""What other projects' models compute, in NumPy float64, by their own names and in their own order of numbers.

A second reading of a file of weights, which shares nothing with the one that makes our model of it: `plsc import` holds
the two against each other. `weights`: {their name: array as it is in the file}, images float [B, C, H, W] as their
model takes them; the result is the feature [B, E] before it is normalised. Dropout does nothing in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def arcface_forward(weights: Weights, images: np.ndarray, epsilon: float) -> np.ndarray:
    """The iresnet of arcface_torch, MagFace and PLSC 2.4."""
    x = prelu(bn(conv(images, weights["conv1.weight"], 1, 1), weights, "bn1", epsilon), weights["prelu.weight"])
    for stage in range(1, 5):
        unit = 0
        while f"layer{stage}.{unit}.conv1.weight" in weights:
            at, stride = f"layer{stage}.{unit}", 2 if unit == 0 else 1
            names = [f"{at}.{name}" for name in ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")]
            y = _unit(weights, x, names, stride, epsilon)
            if unit == 0:
                x = bn(conv(x, weights[f"{at}.downsample.0.weight"], 2, 0), weights, f"{at}.downsample.1", epsilon)
            x, unit = x + y, unit + 1
    x = bn(x, weights, "bn2", epsilon).reshape(len(x), -1)
    x = x @ weights["fc.weight"].astype(np.float64).T + weights["fc.bias"]
    return bn(x, weights, "features", epsilon)


def adaface_forward(weights: Weights, images: np.ndarray, epsilon: float) -> np.ndarray:
    """The IR models of AdaFace; their own forward divides the feature by its length afterwards."""
    x = bn(conv(images, weights["input_layer.0.weight"], 1, 1), weights, "input_layer.1", epsilon)
    x, unit = prelu(x, weights["input_layer.2.weight"]), 0
    while f"body.{unit}.res_layer.1.weight" in weights:
        at, channels = f"body.{unit}", x.shape[1]
        after = weights[f"{at}.res_layer.1.weight"].shape[0]
        stride = 2 if unit == 0 or after != channels else 1
        y = _unit(weights, x, [f"{at}.res_layer.{place}" for place in range(6)], stride, epsilon)
        y = _excited(weights, y, f"{at}.res_layer.se_block")
        if after == channels:
            x = x[:, :, ::stride, ::stride]
        else:
            shortcut = conv(x, weights[f"{at}.shortcut_layer.0.weight"], stride, 0)
            x = bn(shortcut, weights, f"{at}.shortcut_layer.1", epsilon)
        x, unit = x + y, unit + 1
    x = bn(x, weights, "output_layer.0", epsilon).reshape(len(x), -1)
    x = x @ weights["output_layer.3.weight"].astype(np.float64).T + weights["output_layer.3.bias"]
    return bn(x, weights, "output_layer.4", epsilon)


def _excited(weights: Weights, y: np.ndarray, name: str) -> np.ndarray:
    """Squeeze and excitation, where the unit has it: y times a number in (0, 1) for each channel."""
    if f"{name}.fc1.weight" not in weights:
        return y
    hidden = np.maximum(conv(y.mean(axis=(2, 3), keepdims=True), weights[f"{name}.fc1.weight"], 1, 0), 0)
    return y / (1 + np.exp(-conv(hidden, weights[f"{name}.fc2.weight"], 1, 0)))


def _unit(weights: Weights, x: np.ndarray, names: list[str], stride: int, epsilon: float) -> np.ndarray:
    """BN, 3x3 convolution, BN, PReLU, 3x3 convolution with the stride, BN, by these names."""
    first, conv1, second, slopes, conv2, third = names
    y = conv(bn(x, weights, first, epsilon), weights[f"{conv1}.weight"], 1, 1)
    y = prelu(bn(y, weights, second, epsilon), weights[f"{slopes}.weight"])
    return bn(conv(y, weights[f"{conv2}.weight"], stride, 1), weights, third, epsilon)


def conv(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """x [B, C, H, W], weight [O, C / groups, h, w] -> [B, O, H', W']: a product of matrices for each place of the
    kernel; as many groups as the channels of the weight say."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    groups = x.shape[1] // weight.shape[1]
    rows, columns = ((size - kernel) // stride + 1 for size, kernel in zip(x.shape[2:], weight.shape[2:]))
    x = x.reshape(len(x), groups, -1, *x.shape[2:])
    kernels = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    y = np.zeros((len(x), groups, kernels.shape[1], rows * columns))
    for i, j in np.ndindex(*weight.shape[2:]):
        part = x[..., i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        y += kernels[..., i, j] @ part.reshape(*part.shape[:3], -1)
    return y.reshape(len(x), len(weight), rows, columns)


def bn(x: np.ndarray, weights: Weights, name: str, epsilon: float) -> np.ndarray:
    """Over axis 1, by the running statistics; one that has no scale and shift has neither name."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    mean = weights[f"{name}.running_mean"].astype(np.float64).reshape(shape)
    variance = weights[f"{name}.running_var"].astype(np.float64).reshape(shape)
    y = (x - mean) / np.sqrt(variance + epsilon)
    if f"{name}.weight" not in weights:
        return y
    return y * weights[f"{name}.weight"].reshape(shape) + weights[f"{name}.bias"].reshape(shape)


def prelu(x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * slopes.astype(np.float64).reshape(-1, 1, 1))
