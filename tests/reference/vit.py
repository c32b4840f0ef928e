"""Oracles of the vision transformers: counts from the published sizes, and the net in NumPy float64, head by head."""

from __future__ import annotations

import numpy as np

# arcface_torch, backbones/__init__.py: features of a token, blocks. All have 8 heads, patches of 9 pixels.
SIZES = {"ViT-T": (256, 12), "ViT-S": (512, 12), "ViT-B": (512, 24), "ViT-L": (768, 24)}


def vit_counts(width: int, blocks: int, tokens: int, patch: int, embedding: int = 512) -> tuple[int, int]:
    """(parameters, multiply-adds, those of q k^T and of the product with v included)."""
    linear = 3 * width * width + width * width + 2 * 4 * width * width
    block = linear + width + 5 * width + 4 * width  # bias of the projection, of the MLP, two layer norms
    head = tokens * width * width + width * embedding
    pixels = 3 * patch * patch * width
    parameters = pixels + width + tokens * width + width + blocks * block + 2 * width + head + 2 * (width + embedding)
    return parameters, tokens * pixels + blocks * (tokens * linear + 2 * tokens * tokens * width) + head


def layer_norm(x, weights, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(x, weights, name, heads):
    count, width = x.shape[1:]
    out = np.zeros_like(x)
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        q, k, v = (x @ weights[f"{name}.qkv.weight"][:, part * width : (part + 1) * width][:, own] for part in range(3))
        scores = np.einsum("bid,bjd->bij", q, k) / np.sqrt(width // heads)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, :, own] = np.einsum("bij,bjd->bid", scores / scores.sum(-1, keepdims=True), v)
    return out @ weights[f"{name}.out.weight"] + weights[f"{name}.out.bias"]


def mlp(x, weights, name):
    hidden = np.clip(x @ weights[f"{name}.fc1.weight"] + weights[f"{name}.fc1.bias"], 0, 6)
    return hidden @ weights[f"{name}.fc2.weight"] + weights[f"{name}.fc2.bias"]


def vit(weights, images, patch: int, heads: int, training: bool):
    """The feature of images [B, C, H, W]; ``weights`` by names without "backbone."; training = batch statistics."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    rows, columns = images.shape[2] // patch, images.shape[3] // patch
    kernel = weights["patches.weight"].reshape(len(weights["patches.bias"]), -1)
    x = np.stack([
        images[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].reshape(len(images), -1) @ kernel.T
        for i in range(rows) for j in range(columns)
    ], axis=1) + weights["patches.bias"] + weights["position"]  # fmt: skip
    block = 0
    while f"block{block}.norm1.weight" in weights:
        at, block = f"block{block}", block + 1
        x = x + attention(layer_norm(x, weights, f"{at}.norm1"), weights, f"{at}.attention", heads)
        x = x + mlp(layer_norm(x, weights, f"{at}.norm2"), weights, f"{at}.mlp")
    x = layer_norm(x, weights, "norm").reshape(len(x), -1) @ weights["head.fc1.weight"]
    x = batch_norm(x, weights, "head.bn", training) @ weights["head.fc2.weight"]
    return batch_norm(x, weights, "head.feature_bn", training)


def batch_norm(x, weights, name, training):
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_variance"]
    if training:
        mean, variance = x.mean(0), x.var(0)
    return (x - mean) / np.sqrt(variance + 2e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]
