"""Dense optimizers in NumPy float64, one step each, from their papers; nothing of plsc is used."""

from __future__ import annotations

import numpy as np


class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2, with the rate as schedule multiplier: bias corrections by the step."""

    def __init__(self, beta1, beta2, epsilon):
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def start(self, weight):
        return [np.zeros_like(weight), np.zeros_like(weight)]

    def step(self, weight, states, gradient, rate, decay, count):
        first, second = states
        first[...] = self.beta1 * first + (1 - self.beta1) * gradient
        second[...] = self.beta2 * second + (1 - self.beta2) * gradient**2
        corrected_first, corrected_second = first / (1 - self.beta1**count), second / (1 - self.beta2**count)
        return weight - rate * (corrected_first / (np.sqrt(corrected_second) + self.epsilon) + decay * weight)


class SGDW:
    """The same, algorithm 1, without momentum."""

    def start(self, weight):
        return []

    def step(self, weight, states, gradient, rate, decay, count):
        return weight - rate * gradient - rate * decay * weight


class Momentum:
    """v := momentum v + g + decay w; w := w - rate v."""

    def __init__(self, momentum):
        self.momentum = momentum

    def start(self, weight):
        return [np.zeros_like(weight)]

    def step(self, weight, states, gradient, rate, decay, count):
        states[0][...] = self.momentum * states[0] + gradient + decay * weight
        return weight - rate * states[0]


class Lamb(AdamW):
    """You et al. 2020, algorithm 2, phi the identity; weights of one dimension without the ratio."""

    def step(self, weight, states, gradient, rate, decay, count):
        change = (weight - super().step(weight, states, gradient, 1.0, 0.0, count)) + decay * weight
        sizes = np.linalg.norm(weight), np.linalg.norm(change)
        ratio = sizes[0] / sizes[1] if weight.ndim > 1 and min(sizes) > 0 else 1.0
        return weight - rate * ratio * change


class Lars:
    """You et al. 2017, algorithm 1; weights of one dimension without the ratio."""

    def __init__(self, momentum, trust):
        self.momentum, self.trust = momentum, trust

    def start(self, weight):
        return [np.zeros_like(weight)]

    def step(self, weight, states, gradient, rate, decay, count):
        size, below = np.linalg.norm(weight), np.linalg.norm(gradient) + decay * np.linalg.norm(weight)
        ratio = self.trust * size / below if weight.ndim > 1 and size * below > 0 else 1.0
        states[0][...] = self.momentum * states[0] + rate * ratio * (gradient + decay * weight)
        return weight - states[0]


class Lazy:
    """Another one for the rows with a gradient alone; all others stay as they are."""

    def __init__(self, optimizer):
        self.start, self._optimizer = optimizer.start, optimizer

    def step(self, weight, states, gradient, rate, decay, count):
        rows, weight = np.flatnonzero(gradient.any(axis=1)), weight.copy()
        own = [state[rows] for state in states]
        weight[rows] = self._optimizer.step(weight[rows], own, gradient[rows], rate, decay, count)
        for state, values in zip(states, own):
            state[rows] = values
        return weight


class Adafactor:
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors) with the parameters of 6, as written there, with
    sums; relative step rate * min(1, 100 / sqrt(t)), decoupled weight decay."""

    def __init__(self, relative=True, scaled=True):
        self._relative, self._scaled = relative, scaled

    def start(self, weight):
        if weight.ndim < 2:
            return [np.zeros_like(weight)]
        return [np.zeros(weight.shape[0]), np.zeros(weight.size // weight.shape[0])]

    def step(self, weight, states, gradient, rate, decay, count):
        shape, beta = weight.shape, 1.0 - count**-0.8
        if weight.ndim > 1:
            gradient = gradient.reshape(shape[0], -1)
            square = gradient**2 + 1e-30
            states[0][...] = beta * states[0] + (1.0 - beta) * square.sum(axis=1)
            states[1][...] = beta * states[1] + (1.0 - beta) * square.sum(axis=0)
            moment = np.outer(states[0], states[1]) / states[0].sum()
        else:
            states[0][...] = beta * states[0] + (1.0 - beta) * (gradient**2 + 1e-30)
            moment = states[0]
        change = gradient / np.sqrt(moment)
        change = (change / max(1.0, np.sqrt(np.mean(change**2)))).reshape(shape)
        scale = max(1e-3, np.sqrt(np.mean(weight**2))) if self._scaled else 1.0
        step = rate * (min(1.0, 100.0 / np.sqrt(count)) if self._relative else 1.0)
        return weight - step * (scale * change + decay * weight)
