"""The margin softmax and its gradients in NumPy float64, written from the papers, one rank, no tricks.

Loops and one-hot matrices on purpose: this is what everything else is held against.
"""

from __future__ import annotations

import numpy as np

ZERO_NORM = 1e-6  # the library's documented rule: a shorter vector has no direction
SMALLEST_SINE = 1e-5  # and its limit of the slope: below, the slope sinks with the square of the sine


def unit(x):
    """(rows of length 1, or 0 where there is no direction; the inverse lengths)."""
    x = np.asarray(x, np.float64)
    norm = np.sqrt((x * x).sum(1, keepdims=True))
    inverse = np.where(norm > ZERO_NORM, 1.0 / np.maximum(norm, ZERO_NORM), 0.0)
    return x * inverse, inverse


def target_cosine(cosine, margins):
    """cos(m1 * theta + m2) - m3, and its derivative by the cosine."""
    m1, m2, m3 = margins
    if m1 == 1.0 and m2 == 0.0:
        return cosine - m3, np.ones_like(cosine)
    theta = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(theta)
    slope = m1 * np.sin(m1 * theta + m2) / np.maximum(sine, SMALLEST_SINE)
    return np.cos(m1 * theta + m2) - m3, slope * np.minimum(sine / SMALLEST_SINE, 1.0)


def margin_softmax(feature, weight, label, margins=(1.0, 0.5, 0.0), scale=64.0, bias=None):
    """(mean loss, d loss / d feature [G, E], d loss / d weight [C, E], d loss / d bias [C] or None).

    ``margins`` None: softmax of feature @ weight.T + bias. A ``weight`` [C, K * E] has K centres a class.
    """
    feature, weight = np.asarray(feature, np.float64), np.asarray(weight, np.float64)
    rows = np.arange(len(feature))
    if margins is None:
        logits = feature @ weight.T + (0.0 if bias is None else np.asarray(bias, np.float64))
    else:
        unit_feature, feature_inverse = unit(feature)
        unit_weight, weight_inverse = unit(weight.reshape(-1, feature.shape[1]))
        every = (unit_feature @ unit_weight.T).reshape(len(feature), len(weight), -1)
        nearest = every.argmax(2)  # of equal ones the first
        cosine = every.max(2)
        logits = scale * cosine
        value, slope = target_cosine(cosine[rows, label], margins)
        logits[rows, label] = scale * value
    shifted = logits - logits.max(1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -log_probability[rows, label].mean()
    dlogits = np.exp(log_probability)
    dlogits[rows, label] -= 1.0
    dlogits /= len(feature)
    if margins is None:
        return loss, dlogits @ weight, dlogits.T @ feature, dlogits.sum(0)
    dcosine = scale * dlogits
    dcosine[rows, label] *= slope
    dcosine = of_nearest(dcosine, nearest, every.shape[2])
    return (
        loss,
        _through_unit(dcosine @ unit_weight, unit_feature, feature_inverse),
        _through_unit(dcosine.T @ unit_feature, unit_weight, weight_inverse).reshape(weight.shape),
        None,
    )


def of_nearest(dcosine, nearest, number):
    """[G, C * K]: ``dcosine`` [G, C] at the centre ``nearest`` [G, C] of each class, of ``number`` K; 0 at others."""
    found = np.zeros((*dcosine.shape, number))
    for row in range(dcosine.shape[0]):
        for column in range(dcosine.shape[1]):
            found[row, column, nearest[row, column]] = dcosine[row, column]
    return found.reshape(len(found), -1)


def _through_unit(gradient, unit_rows, inverse):
    return (gradient - unit_rows * (gradient * unit_rows).sum(1, keepdims=True)) * inverse


def momentum_step(weight, velocity, gradient, learning_rate, momentum, weight_decay):
    """Dense momentum with L2 decay: (next weight, next velocity)."""
    velocity = momentum * velocity + gradient + weight_decay * weight
    return weight - learning_rate * velocity, velocity
