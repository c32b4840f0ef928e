"""The losses of plsc.losses that depend on more than a margin, in NumPy float64 from their papers: one rank, the whole
batch, no tricks.

A formula has ``fixed(cosine, norm, step)``, which moves its states on and returns what is constant in the gradient;
``target(cosine, norm, fixed)`` [G], ``others(cosine [G, C], fixed)`` and ``penalty(norm)`` [G]. Their slopes are
central differences, number by number; the rest of the chain rule is written out in ``loss_and_gradients``. ``closest``
is the least distance so far of a value to a place where the formula jumps or bends: nearer to it than the rounding
errors of float32, a comparison would say nothing.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from tests.reference.margin_softmax import of_nearest, unit
from tests.reference.own_losses import cosines, cross_entropy, uniform

STEP = 1e-6  # of a central difference: an error of about 1e-10


class Formula:
    """What a loss leaves out."""

    defaults: dict = {}
    states: dict[str, float] = {}
    closest = np.inf

    def __init__(self, scale: float, seed: int = 0, **options):
        self.scale, self.seed = scale, seed
        self.states = dict(self.states)
        self.filter_above, self.smoothing = options.pop("filter_above", np.inf), options.pop("label_smoothing", 0.0)
        options.pop("class_weights", None), options.pop("sub_centres", None)
        self.weight = 1.0  # [G]: the factors of the features' classes
        self.options = {**self.defaults, **options}

    def begin(self, num_classes):
        """Called before the first step with the classes of a step."""

    def end_step(self, rate):
        """Called after each step with its learning rate."""

    def fixed(self, cosine, norm, step):
        return None

    def others(self, cosine, fixed):
        return cosine.copy()

    def penalty(self, norm):
        return np.zeros_like(norm)

    def keep(self, **states):
        self.states = {name: float(np.float32(value)) for name, value in states.items()}  # as they are stored

    def near(self, *distances):
        self.closest = min([self.closest, *(np.abs(distance).min() for distance in distances if distance.size)])

    def loss(self, feature, rows, label, fixed):
        """The mean over the batch."""
        cosine, own = cosines(feature, rows), (np.arange(len(label)), label)
        norm = np.linalg.norm(feature, axis=1)
        logits = self.filtered(cosine, fixed)
        logits[own] = self.target(cosine[own], norm, fixed)
        return (self.weight * self.entropy(self.scale * logits, label) + self.penalty(norm)).mean()

    def filtered(self, cosine, fixed):
        """``others``, where it is 0 above ``filter_above``."""
        self.near(cosine - self.filter_above)
        return np.where(cosine > self.filter_above, 0.0, self.others(cosine, fixed))

    def wanted(self, shape, label):
        """The target distribution [G, C]; label smoothing as in Szegedy et al. 2016, sect. 7."""
        found = np.full(shape, self.smoothing / shape[1])
        found[np.arange(shape[0]), label] += 1.0 - self.smoothing
        return found

    def by_logits(self, logits, label):
        """d entropy / d logits [G, C]."""
        shifted = logits - logits.max(1, keepdims=True)
        return np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True) - self.wanted(logits.shape, label)

    def entropy(self, logits, label):
        each = np.stack([cross_entropy(logits, np.full(len(label), other)) for other in range(logits.shape[1])], axis=1)
        return (self.wanted(logits.shape, label) * each).sum(1)


class ArcFace(Formula):
    """Deng et al. 2019, eq. 3."""

    def target(self, cosine, norm, fixed):
        return np.cos(np.arccos(cosine) + self.options["margin2"])


class AdaFace(Formula):
    """Kim et al. 2022: cos(theta + g_angle) - g_add, g_angle = -m k, g_add = m k + m."""

    defaults = {"margin": 0.4, "h": 0.333, "alpha": 0.01}
    states = {"mean": 20.0, "deviation": 100.0}

    def fixed(self, cosine, norm, step):
        a, short = self.options["alpha"], np.minimum(np.maximum(norm, 0.001), 100.0)
        deviation = np.std(short, ddof=1) if len(short) > 1 else 0.0
        self.keep(mean=a * short.mean() + (1 - a) * self.states["mean"],
                  deviation=a * deviation + (1 - a) * self.states["deviation"])  # fmt: skip
        k = (short - self.states["mean"]) / ((self.states["deviation"] + 0.001) / self.options["h"])
        angle = np.arccos(cosine) - self.options["margin"] * np.clip(k, -1, 1)
        self.near(angle - 0.001, angle - np.pi + 0.001)
        return np.clip(k, -1, 1)

    def target(self, cosine, norm, k):
        m = self.options["margin"]
        return np.cos(np.clip(np.arccos(cosine) - m * k, 0.001, np.pi - 0.001)) - (m * k + m)


class MagFace(Formula):
    """Meng et al. 2021: cos(theta + m(a)) and lambda_g (a / u_a^2 + 1 / a), a clipped to [l_a, u_a]."""

    defaults = {
        "smallest_margin": 0.45, "largest_margin": 0.8, "shortest": 10.0, "longest": 110.0, "penalty_weight": 35.0,
    }  # fmt: skip

    def fixed(self, cosine, norm, step):
        self.near(norm - self.options["shortest"], norm - self.options["longest"])

    def target(self, cosine, norm, fixed):
        lengths, margins = (
            [self.options[name] for name in names]
            for names in (("shortest", "longest"), ("smallest_margin", "largest_margin"))
        )
        return np.cos(np.arccos(cosine) + np.interp(norm, lengths, margins))

    def penalty(self, norm):
        a = np.clip(norm, self.options["shortest"], self.options["longest"])
        return self.options["penalty_weight"] * (a / self.options["longest"] ** 2 + 1 / a)


class CurricularFace(Formula):
    """Huang et al. 2020: N(t, c) = c (t + c) for a c above T = cos(theta + m), else c."""

    defaults = {"margin2": 0.5, "alpha": 0.01}
    states = {"t": 0.0}

    def fixed(self, cosine, norm, step):
        a = self.options["alpha"]
        self.keep(t=a * cosine.mean() + (1 - a) * self.states["t"])
        self.near(np.arccos(cosine) - np.pi + self.options["margin2"])
        return self.states["t"], np.cos(np.arccos(cosine) + self.options["margin2"])[:, None]

    def others(self, cosine, fixed):
        t, threshold = fixed
        self.near(cosine - threshold)
        return np.where(cosine > threshold, cosine * (t + cosine), cosine)

    def target(self, cosine, norm, fixed):
        theta, m = np.arccos(cosine), self.options["margin2"]
        return np.where(theta < np.pi - m, np.cos(theta + m), cosine - m * np.sin(m))


class ElasticFace(Formula):
    """Boutros et al. 2022: margins from N(m, sigma); ``plus``: the largest ones for the smallest cosines."""

    defaults = {"sigma": 0.0125, "plus": False}

    def fixed(self, cosine, norm, step):
        drawn = uniform(len(cosine), step, self.seed)
        margin = np.array([NormalDist().inv_cdf(one) for one in drawn]) * self.options["sigma"] + self.mean
        if not self.options["plus"]:
            return margin
        self.near(np.diff(np.sort(cosine)))
        handed = np.zeros_like(margin)
        for place, margin_of_place in zip(sorted(range(len(cosine)), key=cosine.__getitem__), sorted(-margin)):
            handed[place] = -margin_of_place
        return handed


class ElasticArcFace(ElasticFace):
    mean = property(lambda self: self.options.get("margin2", 0.5))

    def target(self, cosine, norm, margin):
        return np.cos(np.arccos(cosine) + margin)


class ElasticCosFace(ElasticFace):
    mean = property(lambda self: self.options.get("margin3", 0.35))

    def target(self, cosine, norm, margin):
        return cosine - margin


class Pairs(Formula):
    """positive * softplus(-(z_y + b)) + negative * sum_j softplus(z_j + b) for logits z."""

    def begin(self, num_classes):
        self.keep(bias=self.initial(num_classes))

    def signed(self, logits, label):
        """(each pair's logit, negative for the own class; its weight; its sign) [G, C]."""
        own = np.eye(logits.shape[1])[label] == 1
        sign, weight = np.where(own, -1.0, 1.0), np.where(own, *self.weights)
        return sign * (logits + self.states["bias"]), weight, sign

    def entropy(self, logits, label):
        signed, weight, _ = self.signed(logits, label)
        return (weight * np.logaddexp(0.0, signed)).sum(1)

    def by_logits(self, logits, label):
        signed, weight, sign = self.signed(logits, label)
        found = sign * weight / (1.0 + np.exp(-signed))
        self.by_bias = (found.sum(1) * self.weight).mean()
        return found

    def end_step(self, rate):
        limited = np.clip(self.by_bias, -self.weights[0], self.weights[0])
        self.keep(bias=self.states["bias"] - rate * self.options["bias_rate"] * limited)


class UniFace(Pairs):
    """Zhou et al. 2023, with the bias of the other sign."""

    defaults = {"margin3": 0.4, "negative_weight": 1.0, "bias_rate": 1.0}
    weights = property(lambda self: (1.0, self.options["negative_weight"]))

    def initial(self, num_classes):
        return -np.log(10.0 * num_classes)

    def target(self, cosine, norm, fixed):
        return cosine - self.options["margin3"]


class SphereFace2(Pairs):
    """Wen et al. 2022, SphereFace2-C."""

    defaults = {"margin3": 0.4, "balance": 0.7, "t": 3.0, "weight": 50.0, "bias_rate": 1.0}

    @property
    def weights(self):
        whole, positive = self.options["weight"] / self.scale, self.options["balance"]
        return whole * positive, whole * (1.0 - positive)

    def spread(self, cosine):
        return 2.0 * ((cosine + 1.0) / 2.0) ** self.options["t"] - 1.0

    def initial(self, num_classes):
        """Where the gradient by the bias is 0 at cosines of 0, by bisection."""
        own, other = (self.scale * (self.spread(0.0) + sign * self.options["margin3"]) for sign in (-1, 1))
        low, high = -1e3, 1e3
        for _ in range(200):
            b = (low + high) / 2
            positive, negative = self.weights[0] / (1 + np.exp(own + b)), self.weights[1] / (1 + np.exp(-other - b))
            low, high = (b, high) if positive > (num_classes - 1) * negative else (low, b)
        return b

    def others(self, cosine, fixed):
        return self.spread(cosine) + self.options["margin3"]

    def target(self, cosine, norm, fixed):
        return self.spread(cosine) - self.options["margin3"]


def loss_and_gradients(formula, feature, rows, label, step):
    """(loss, d loss / d feature [G, E], d loss / d rows) in the step of that number, from 1; ``rows`` [C, E], or
    [C, K * E] with K centres a class."""
    feature, rows = np.asarray(feature, np.float64), np.asarray(rows, np.float64)
    (unit_feature, by_norm), (unit_rows, by_row_norm) = unit(feature), unit(rows.reshape(-1, feature.shape[1]))
    every = (unit_feature @ unit_rows.T).reshape(len(feature), len(rows), -1)
    cosine, nearest, own = every.max(2), every.argmax(2), (np.arange(len(label)), label)
    if every.shape[2] > 1:
        formula.near(np.diff(np.sort(every, axis=2)[:, :, -2:]))
    # the cosine of two float32 vectors as it is kept
    target, norm = np.clip(cosine[own], -1.0, 1.0), np.linalg.norm(feature, axis=1)
    fixed = formula.fixed(target, norm, step)
    logits = formula.filtered(cosine, fixed)
    logits[own] = formula.target(target, norm, fixed)
    nll = formula.weight * formula.entropy(formula.scale * logits, label)
    dlogits = formula.by_logits(formula.scale * logits, label)
    dlogits *= formula.scale / len(label) * np.broadcast_to(formula.weight, len(label))[:, None]
    dcosine = dlogits * slope(lambda moved: formula.filtered(moved, fixed), cosine)
    turns = np.abs(target) < 1.0 - 1e-9  # a vector on its centre, or opposite to it, has no direction to turn to
    inner = np.where(turns, target, 0.0)
    dcosine[own] = dlogits[own] * slope(lambda moved: formula.target(moved, norm, fixed), inner) * turns
    dnorm = dlogits[own] * slope(lambda moved: formula.target(target, moved, fixed), norm)
    dnorm += slope(formula.penalty, norm) / len(label)
    dcosine = of_nearest(dcosine, nearest, every.shape[2])
    dfeature = _turned(dcosine @ unit_rows, unit_feature, by_norm) + unit_feature * dnorm[:, None]
    drows = _turned(dcosine.T @ unit_feature, unit_rows, by_row_norm).reshape(rows.shape)
    return (nll + formula.penalty(norm)).mean(), dfeature, drows


def slope(function, values):
    """The derivative of a function of each number."""
    step = STEP * np.maximum(1.0, np.abs(values))
    return (function(values + step) - function(values - step)) / (2.0 * step)


def _turned(gradient, unit_rows, inverse):
    return (gradient - unit_rows * (gradient * unit_rows).sum(1, keepdims=True)) * inverse
