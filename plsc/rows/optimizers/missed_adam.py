"""The steps that a row has missed with Adam, as a few numbers. No optimizer itself.

Without a gradient, j steps after a row was up to date its moments are beta1^j m and beta2^j v. Its weight changes by

    w := keep * w - m * F(sqrt(v)),    F(u) = sum_j a_j / (s_j u + epsilon)

with a_j = rate_j beta1^j / (1 - beta1^t) times the decay of the weight by later steps, and s_j = sqrt(beta2^j / (1 -
beta2^t)), t being the number of the step. All but u is the same for all numbers of all rows that were last up to date
in the same step. F has no closed form, but as a function of y = log(s), 1 / (e^y u + epsilon) is smooth for any u and
epsilon: its poles are pi away from the real line. So it is interpolated in y, at NODES Chebyshev points of the interval
of all y_j that matter, and

    F(u) = sum_q W_q / (e^(y_q) u + epsilon),    W_q = sum_j a_j l_q(y_j)

where l_q are Lagrange's polynomials. The W_q take one more step by a multiplication and a sum. The relative error of F
is about 10 rho^-NODES with rho = pi / h + sqrt((pi / h)^2 + 1), h half the length of the interval (Trefethen,
Approximation Theory and Approximation Practice, theorem 8.2), for any u. Steps whose a_j / s_j has fallen below
SMALLEST of the first are left out.
"""

from __future__ import annotations

import math

import numpy as np

from plsc.rows.optimizer import MissedSteps, Step

NODES = 12
SMALLEST = 1e-9
LARGEST_ERROR = 1e-6  # relative; float32 has 6e-8, and a step of Adam some ten roundings
_POINTS = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
_DEGREES = np.arange(NODES)
# l_q(x) = sum_p of T_p(x) times this, by the discrete orthogonality of Chebyshev's polynomials T_p
_LAGRANGE = np.cos(_DEGREES[:, None] * np.arccos(_POINTS)) * np.where(_DEGREES, 2.0, 1.0)[:, None] / NODES
_POWER1, _POWER2, _KEEP, _CENTRE, _HALF, _WEIGHTS = range(6)  # columns of a table; the W_q are the last NODES


class MissedAdam:
    """The numbers of rows with missed steps, for RowOptimizer.nothing_missed, missed and bring_up_to_date."""

    def __init__(self, beta1: float, beta2: float, epsilon: float):
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        ratio = beta1 / math.sqrt(beta2) if beta2 > 0 else 1.0  # of a_j / s_j and the one before
        self._steps = 1 if ratio == 0 else math.ceil(math.log(SMALLEST) / math.log(ratio)) if ratio < 1 else None

    @property
    def is_exact(self) -> bool:
        """True where the error stays below LARGEST_ERROR, in the first step of a run too, when it is the largest."""
        if self._steps is None:
            return False
        _, half = self._interval(1.0 / (1.0 - self._beta2))
        slope = math.pi / half
        return 10.0 * (slope + math.sqrt(slope**2 + 1.0)) ** -NODES < LARGEST_ERROR

    def nothing(self) -> np.ndarray:
        """The numbers of a row that has missed nothing."""
        numbers = np.zeros(_WEIGHTS + NODES)
        numbers[[_POWER1, _POWER2, _KEEP]] = 1.0
        return numbers

    def one_more(self, table: np.ndarray, step: Step) -> np.ndarray:
        """``table`` [n, 5 + NODES] after one more step. The interval of a row is set by the first step it misses."""
        unbias_first, unbias_second = step.numbers
        keep = 1.0 - step.learning_rate * step.weight_decay
        table = table.copy()
        fresh = table[:, _HALF] == 0.0  # the last one, and those before it if steps were skipped
        table[fresh, _CENTRE : _HALF + 1] = self._interval(unbias_second)
        table[:, _POWER1] *= self._beta1
        table[:, _POWER2] *= self._beta2
        table[:, _KEEP] *= keep
        table[:, _WEIGHTS:] *= keep
        matters = table[:, _POWER1] >= SMALLEST * np.sqrt(table[:, _POWER2])
        rows = table[matters]
        place = (0.5 * np.log(unbias_second * rows[:, _POWER2]) - rows[:, _CENTRE]) / rows[:, _HALF]
        angles = np.arccos(np.clip(place, -1.0, 1.0))
        shares = np.cos(_DEGREES * angles[:, None]) @ _LAGRANGE
        table[matters, _WEIGHTS:] += (step.learning_rate * unbias_first * rows[:, [_POWER1]]) * shares
        return table

    def bring_up_to_date(self, weight, slots: tuple, missed: MissedSteps) -> tuple:
        """See RowOptimizer.bring_up_to_date."""
        first, second = slots
        power1, power2, keep, centre, half, *weights = missed.factors()
        root, total = missed.xp.sqrt(second), 0.0
        for point, share in zip(_POINTS.tolist(), weights):
            total = total + share / (missed.xp.exp(centre + half * point) * root + self._epsilon)
        return keep * weight - first * total, (power1 * first, power2 * second)

    def _interval(self, unbias_second: float) -> tuple[float, float]:
        """(centre, half the length) of the interval of all y_j that matter, from the correction of the first step."""
        power = 1.0 - 1.0 / unbias_second  # beta2^t of that step
        last = self._beta2 ** (self._steps - 1)
        begin = 0.5 * math.log(self._beta2 * unbias_second)
        end = 0.5 * math.log(self._beta2 * last / (1.0 - power * last))
        return (begin + end) / 2.0, max((begin - end) / 2.0, 1e-3)
