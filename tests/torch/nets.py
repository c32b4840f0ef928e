"""The nets of arcface_torch, MagFace and AdaFace in torch, with the names of their files; imported by worker.py only.

Written for these tests from the published layouts (docs/coming_from.md names the projects): which layers there are, in
which order, with which names, strides, paddings and epsilons. Nothing of plsc is imported, so what torch computes here
is independent of plsc's nets and of its NumPy formulas.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
LAST_STRIDE = 16  # of the ResNets and MobileFaceNets


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class IUnit(nn.Module):
    """A unit of the iresnet; the first of a stage halves the map and has a projection on its shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, epsilon: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=epsilon)
        self.conv1 = conv3(inputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs, eps=epsilon)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = conv3(outputs, outputs, stride)
        self.bn3 = nn.BatchNorm2d(outputs, eps=epsilon)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(conv1(inputs, outputs, stride), nn.BatchNorm2d(outputs, eps=epsilon))

    def forward(self, x):
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """iresnet of arcface_torch (epsilon 1e-5) and MagFace (2e-5)."""

    def __init__(self, depth: int, width: int, embedding: int, side: int, epsilon: float = 1e-5):
        super().__init__()
        self.conv1 = conv3(3, width)
        self.bn1 = nn.BatchNorm2d(width, eps=epsilon)
        self.prelu = nn.PReLU(width)
        before = width
        for stage, units in enumerate(UNITS[depth], start=1):
            out = width * 2 ** (stage - 1)
            made = [IUnit(before if i == 0 else out, out, 2 if i == 0 else 1, epsilon) for i in range(units)]
            self.add_module(f"layer{stage}", nn.Sequential(*made))
            before = out
        self.bn2 = nn.BatchNorm2d(before, eps=epsilon)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(before * (side // LAST_STRIDE) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding, eps=epsilon)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.features(self.fc(torch.flatten(self.dropout(self.bn2(x)), 1)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = conv1(channels, channels // 16)
        self.relu = nn.ReLU()
        self.fc2 = conv1(channels // 16, channels)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        return x * self.sigmoid(self.fc2(self.relu(self.fc1(self.avg_pool(x)))))


class IRUnit(nn.Module):
    """A unit of AdaFace's IR; with the same channels its shortcut only leaves out rows and columns."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeezed: bool):
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(conv1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs), conv3(inputs, outputs), nn.BatchNorm2d(outputs), nn.PReLU(outputs),
            conv3(outputs, outputs, stride), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        if squeezed:
            self.res_layer.add_module("se_block", SqueezeExcite(outputs))

    def forward(self, x):
        return self.shortcut_layer(x) + self.res_layer(x)


class AdaFaceNet(nn.Module):
    """AdaFace's IR and IR-SE; returns the feature of length 1 and its length."""

    def __init__(self, depth: int, width: int, embedding: int, side: int, squeezed: bool = False):
        super().__init__()
        self.input_layer = nn.Sequential(conv3(3, width), nn.BatchNorm2d(width), nn.PReLU(width))
        before, made = width, []
        for stage, units in enumerate(UNITS[depth]):
            for i in range(units):
                made.append(IRUnit(before, width * 2**stage, 2 if i == 0 else 1, squeezed))
                before = width * 2**stage
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before), nn.Dropout(0.4), nn.Flatten(),
            nn.Linear(before * (side // LAST_STRIDE) ** 2, embedding), nn.BatchNorm1d(embedding, affine=False),
        )  # fmt: skip
        self.body = nn.Sequential(*made)

    def forward(self, x):
        feature = self.output_layer(self.body(self.input_layer(x)))
        length = torch.norm(feature, 2, 1, True)
        return torch.div(feature, length), length


class Layers(nn.Module):
    """A chain whose members are named layers.0, layers.1 and so on."""

    def __init__(self, *members: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*members)

    def forward(self, x):
        return self.layers(x)


class SumLayers(nn.Module):
    """The same, where each member's result is added to what it was given."""

    def __init__(self, *members: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*members)

    def forward(self, x):
        for member in self.layers:
            x = x + member(x)
        return x


def mobile_block(inputs: int, outputs: int, kernel=3, stride=1, padding=1, groups=1, linear=False) -> Layers:
    made = [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return Layers(*made, *([] if linear else [nn.PReLU(outputs)]))


def bottleneck(inputs: int, hidden: int, outputs: int, stride: int) -> Layers:
    return Layers(
        mobile_block(inputs, hidden, 1, 1, 0), mobile_block(hidden, hidden, 3, stride, 1, groups=hidden),
        mobile_block(hidden, outputs, 1, 1, 0, linear=True),
    )  # fmt: skip


class MobileFaceNet(nn.Module):
    """arcface_torch's mbf and, with a scale of 4, mbf_large. width: 64 there."""

    def __init__(self, width: int, embedding: int, side: int, large: bool):
        super().__init__()
        scale, repeats = (4, (2, 8, 12, 4)) if large else (2, (1, 4, 6, 2))
        wide, small = scale * width, 2 * width  # small: hidden channels of the first stages

        def same(channels: int, hidden: int, count: int) -> SumLayers:
            return SumLayers(*(bottleneck(channels, hidden, channels, 1) for _ in range(count)))

        second = same(wide, small, repeats[0]) if large else mobile_block(wide, wide, 3, 1, 1, groups=width)
        self.layers = nn.ModuleList([
            mobile_block(3, wide, 3, 2, 1), second,
            bottleneck(wide, small, wide, 2), same(wide, small, repeats[1]),
            bottleneck(wide, 2 * small, 2 * wide, 2), same(2 * wide, 2 * small, repeats[2]),
            bottleneck(2 * wide, 4 * small, 2 * wide, 2), same(2 * wide, 2 * small, repeats[3]),
        ])  # fmt: skip
        last = 8 * width
        self.conv_sep = mobile_block(2 * wide, last, 1, 1, 0)
        whole = mobile_block(last, last, side // LAST_STRIDE, 1, 0, groups=last, linear=True)
        self.features = Layers(whole, nn.Flatten(), nn.Linear(last, embedding, bias=False), nn.BatchNorm1d(embedding))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        scores = (queries @ keys.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((scores @ values).transpose(1, 2).reshape(batch, tokens, width))


class ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)  # in the state_dict it stands before the attention
        self.attn = Attention(width, heads)
        first, last = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(fc1=first, act=nn.ReLU6(), fc2=last))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """arcface_torch's vit_*; the token that stands in for masked patches is in the file and unused here."""

    def __init__(self, width: int, depth: int, embedding: int, side: int, patch: int = 9):
        super().__init__()
        tokens = (side // patch) ** 2
        self.patch_embed = Patches(width, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([ViTBlock(width, 8) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(width * tokens, width, bias=False), nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, embedding, bias=False), nn.BatchNorm1d(embedding, eps=2e-5),
        )  # fmt: skip

    def forward(self, x):
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.feature(self.norm(x).flatten(1))


def draw(net: nn.Module, images: torch.Tensor, seed: int) -> nn.Module:
    """Numbers for all of a net, in evaluation mode, with the size that training gives them.

    Means and variances are those of what these images make of random weights, so every layer hands on numbers of about
    1, in nets of 200 layers too, and images differ as much behind the last layer as before the first. No scale is 1 and
    no shift 0. One variance of each batch norm is about the epsilon, so that 1e-5 in place of 2e-5 is seen.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [module for module in net.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.dim() > 1:
                fan = 1.0 if name in ("pos_embed", "mask_token") else tensor[0].numel()
                tensor.normal_(0, fan**-0.5, generator=random)
            elif tensor.is_floating_point():
                low, high = (0.5, 1.5) if name.endswith("weight") else (-0.3, 0.3)
                tensor.uniform_(low, high, generator=random)
        for module in net.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.05, 0.4, generator=random)
            elif isinstance(module, nn.Dropout):
                module.eval()
        for norm in norms:
            norm.momentum = 1.0  # what it sees now is all that it keeps
            norm.train()
        net(images)
        for norm in norms:
            if norm.affine:  # else nothing makes up for it, and the rounding of one number is that of the embedding
                norm.running_var[0] = 2e-5
                norm.weight[0] = 0.005
    return net.eval()
