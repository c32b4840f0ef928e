"""Losses of users in NumPy float64, one rank, the whole batch; their gradients by finite differences.

A formula has ``constants(feature, rows, label, ...)``, what no gradient flows through, and ``loss(feature, rows, label,
constants)``, the mean over the batch.
"""

from __future__ import annotations

import numpy as np

from plsc.classifiers.sampling import mix, stream_key
from tests.reference.margin_softmax import unit

STEP = 1e-6  # of a difference: the error of a central one is about 1e-16 / 1e-6 and 1e-12 times the third derivative


def gradients(formula, feature, rows, label, constants):
    """(loss, d loss / d feature, d loss / d rows)."""

    def by(which):
        values = [feature, rows]
        found = np.zeros_like(values[which])
        for place in np.ndindex(found.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = values[which].copy()
                moved[place] += step
                changed = [*values[:which], moved, *values[which + 1 :]]
                ends.append(formula.loss(*changed, label, constants))
            found[place] = (ends[0] - ends[1]) / (2.0 * STEP)
        return found

    return formula.loss(feature, rows, label, constants), by(0), by(1)


def cosines(feature, rows):
    return unit(feature)[0] @ unit(rows)[0].T


def cross_entropy(logits, label):
    """[G]."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(label)), label]


class EasyArcFace:
    """cos(theta + margin) where cos(theta) is above 0, else cos(theta)."""

    def __init__(self, scale: float, margin: float):
        self.scale, self.margin = scale, margin
        self.states: dict = {}

    def constants(self, feature, rows, label, step):
        return None

    def loss(self, feature, rows, label, constants):
        logits = cosines(feature, rows)
        own = np.arange(len(label)), label
        target = logits[own]
        logits[own] = np.where(target > 0, np.cos(np.arccos(target) + self.margin), target)
        return cross_entropy(self.scale * logits, label).mean()


class Toy:
    """tests/dist/toy_loss.py."""

    def __init__(self, scale: float, seed: int, margin: float = 0.2, weight: float = 0.1):
        self.scale, self.seed, self.margin, self.weight = scale, seed, margin, weight
        self.states = {"norm": 3.0, "cosine": 0.1}

    def constants(self, feature, rows, label, step):
        """Moves the states on."""
        cosine = cosines(feature, rows)[np.arange(len(label)), label]
        norm = np.linalg.norm(feature, axis=1)
        means = {"norm": 0.9 * self.states["norm"] + 0.1 * norm.mean()}
        means["cosine"] = 0.5 * self.states["cosine"] + 0.5 * cosine.mean()
        self.states = {name: float(np.float32(value)) for name, value in means.items()}  # as they are kept
        drawn = uniform(len(label), step, self.seed)
        fixed = dict(self.states), drawn, cosine.max()
        return (*fixed, self.target(cosine, norm, *fixed))

    def target(self, cosine, norm, states, drawn, largest):
        margin = self.margin + 0.1 * norm / (norm + states["norm"]) + 0.05 * drawn + 0.1 * largest
        return cosine - margin - 0.05 * (1.0 - cosine) ** 2

    def loss(self, feature, rows, label, constants):
        states, drawn, largest, threshold = constants
        cosine, norm = cosines(feature, rows), np.linalg.norm(feature, axis=1)
        own = np.arange(len(label)), label
        hard = cosine > threshold[:, None]
        logits = np.where(hard, cosine * (states["cosine"] + cosine), cosine)
        logits[own] = self.target(cosine[own], norm, states, drawn, largest)
        penalty = self.weight * (norm + 4.0 / norm)
        return (cross_entropy(self.scale * logits, label) + penalty).mean()


def uniform(count: int, step: int, seed: int):
    """Batch.uniform(), by the integers of NumPy."""
    key = stream_key(seed, 1 << 31)
    step_key = mix(np.int64(step ^ key))
    keys = [mix(step_key, keys=(turn,)) for turn in (1, 2, 3, 4)]
    return (mix(np.arange(count, dtype=np.int64), keys=keys) + 0.5) / 2.0**32
