"""The steps that a row has missed with Adam, as a few numbers. No optimizer itself.

Without a gradient, j steps after a row was up to date its moments are beta1^j m and beta2^j v. Its weight changes by

    w := keep * w - m * F(sqrt(v)),    F(u) = sum_j a_j / (s_j u + epsilon)

with a_j = rate_j beta1^j / (1 - beta1^t) times the decay of the weight by later steps, and s_j = sqrt(beta2^j / (1 -
beta2^t)), t being the number of the step. All but u is the same for all numbers of all rows that were last up to date
in the same step. F has no closed form, but as a function of y = log(s), g(y) = e^(y / 2) / (e^y u + epsilon) is smooth
for any u and epsilon: its poles are pi away from the real line. So g is interpolated in y, at n Chebyshev points of the
interval of all y_j that matter, and

    F(u) = sum_q W_q / (e^(y_q) u + epsilon),    W_q = sum_j a_j e^((y_q - y_j) / 2) l_q(y_j)

where l_q are Lagrange's polynomials. The W_q take one more step by a multiplication and a sum.

The error. Let the interval be centre +- h. For any r > 1 let A = h (r + 1/r) / 2 and B = h (r - 1/r) / 2 < pi be the
axes of the ellipse of Bernstein. There |e^y u + epsilon| >= (e^x u + epsilon) cos(B / 2) with x = Re y, and a change of
x by d changes g(x) by a factor of at most e^(|d| / 2). So with Trefethen, Approximation Theory and Approximation
Practice, theorem 8.2, each g(y_j), and therefore F(u), has a relative error of at most

    E = min over r of  4 r^(1 - n) / (r - 1) * e^((A + h) / 2) / cos(B / 2)

for any u and epsilon, as all a_j are of one sign: learning rates of at least 0, and weight decays of at most 1 / rate.
n is the smallest number with E < LARGEST_ERROR for the first step of a run, when h is the largest: after 200 steps E is
1e-18 with betas of 0.9 and 0.999. Later steps, with q^j < SMALLEST where q = beta1 / sqrt(beta2), are left out. By
Cauchy and Schwarz |m| / sqrt(v) is at most R = (1 - beta1) / sqrt((1 - beta2) (1 - q^2)), so that all of them together
change a number of the weight by at most R * SMALLEST / (1 - q) times the largest rate / (1 - beta1^t), 8e-8 of it.
"""

from __future__ import annotations

import math

import numpy as np

from plsc.rows.optimizer import MissedSteps, Step

MOST = 40  # points: with more, repeating the steps costs no more
SMALLEST = 1e-9
LARGEST_ERROR = 1e-6  # relative; float32 has 6e-8, and a step of Adam some ten roundings
_POWER1, _POWER2, _KEEP, _CENTRE, _HALF, _WEIGHTS = range(6)  # columns of a table; the W_q are the last n


def largest_error(half: float, number: int) -> float:
    """E of the module for an interval of the length 2 ``half`` and ``number`` points."""
    radius = np.exp(np.linspace(0.0, 12.0, 2401)[1:])
    longer, shorter = half * (radius + 1.0 / radius) / 2.0, half * (radius - 1.0 / radius) / 2.0
    inside = shorter < math.pi
    radius, longer, shorter = radius[inside], longer[inside], shorter[inside]
    growth = np.exp((longer + half) / 2.0) / np.cos(shorter / 2.0)
    return float(np.min(4.0 * radius ** (1.0 - number) / (radius - 1.0) * growth))


class MissedAdam:
    """The numbers of rows with missed steps, for RowOptimizer.nothing_missed, missed and bring_up_to_date.

    ``points`` [n]: the Chebyshev points in [-1, 1]; None where n would be above MOST, and the steps must be repeated.
    ``number``: n, if it is given by a window.
    """

    def __init__(self, beta1: float, beta2: float, epsilon: float, number: int | None = None):
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        ratio = beta1 / math.sqrt(beta2) if beta2 > 0 else 1.0  # of a_j / s_j and the one before
        self._steps = 1 if ratio == 0 else math.ceil(math.log(SMALLEST) / math.log(ratio)) if ratio < 1 else None
        number = number or self._number_of_points()
        self.points = None
        if number is not None:
            self.points = np.cos(np.pi * (np.arange(number) + 0.5) / number)
            self._degrees = np.arange(number)
            # l_q(x) = sum_p of T_p(x) times this, by the discrete orthogonality of Chebyshev's polynomials T_p
            cosines = np.cos(self._degrees[:, None] * np.arccos(self.points))
            self._lagrange = cosines * np.where(self._degrees, 2.0, 1.0)[:, None] / number

    @classmethod
    def of_window(cls, beta1: float, beta2: float, epsilon: float, numbers: int) -> MissedAdam | None:
        """For a window with so many numbers a step, of which all but 5 are W_q; None where that leaves none."""
        return cls(beta1, beta2, epsilon, numbers - _WEIGHTS) if numbers > _WEIGHTS else None

    def _number_of_points(self) -> int | None:
        if self._steps is None:
            return None
        _, half = self._interval(1.0 / (1.0 - self._beta2))
        return next((number for number in range(2, MOST + 1) if largest_error(half, number) < LARGEST_ERROR), None)

    @property
    def is_exact(self) -> bool:
        """True where the error stays below LARGEST_ERROR."""
        return self.points is not None

    def nothing(self) -> np.ndarray:
        """The numbers of a row that has missed nothing."""
        numbers = np.zeros(_WEIGHTS + len(self.points))
        numbers[[_POWER1, _POWER2, _KEEP]] = 1.0
        return numbers

    def one_more(self, table: np.ndarray, step: Step) -> np.ndarray:
        """``table`` [steps, 5 + n] after one more step. The interval of a row is set by the first step it misses."""
        unbias_first, unbias_second = step.numbers
        keep = 1.0 - step.learning_rate * step.weight_decay
        table = table.copy()
        fresh = table[:, _HALF] == 0.0  # the last one, and those before it if steps were skipped
        table[fresh, _CENTRE : _HALF + 1] = self._interval(unbias_second)
        table[:, _POWER1] *= self._beta1
        table[:, _POWER2] *= self._beta2
        table[:, _KEEP] *= keep
        table[:, _WEIGHTS:] *= keep
        matters = table[:, _POWER1] > SMALLEST * np.sqrt(table[:, _POWER2])
        rows = table[matters]
        place = (0.5 * np.log(unbias_second * rows[:, _POWER2]) - rows[:, _CENTRE]) / rows[:, _HALF]
        place = np.clip(place, -1.0, 1.0)
        angles = np.arccos(place)
        shares = np.cos(self._degrees * angles[:, None]) @ self._lagrange
        shares *= np.exp(0.5 * rows[:, [_HALF]] * (self.points - place[:, None]))
        table[matters, _WEIGHTS:] += (step.learning_rate * unbias_first * rows[:, [_POWER1]]) * shares
        return table

    def bring_up_to_date(self, weight, slots: tuple, missed: MissedSteps) -> tuple:
        """See RowOptimizer.bring_up_to_date."""
        first, second = slots
        power1, power2, keep, centre, half, *weights = missed.factors()
        root, total = missed.xp.sqrt(second), 0.0
        for point, share in zip(self.points.tolist(), weights):
            total = total + share / (missed.xp.exp(centre + half * point) * root + self._epsilon)
        return keep * weight - first * total, (power1 * first, power2 * second)

    def _interval(self, unbias_second: float) -> tuple[float, float]:
        """(centre, half the length) of the interval of all y_j that matter, from the correction of the first step."""
        power = 1.0 - 1.0 / unbias_second  # beta2^t of that step
        last = self._beta2 ** (self._steps - 1)
        begin = 0.5 * math.log(self._beta2 * unbias_second)
        end = 0.5 * math.log(self._beta2 * last / (1.0 - power * last))
        return (begin + end) / 2.0, max((begin - end) / 2.0, 1e-3)
