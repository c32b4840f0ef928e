"""Loss, the base class of all losses, and Batch, the argument of its methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc.errors import ConfigError


class Batch:
    """The batch as a loss sees it: values of the static program, one number for each feature of the global batch.

    ``cosine`` [G]: of each feature and the centre of its target class. ``norm`` [G]: the norm of each feature. Both are
    the same on every rank. ``states``: the loss's states by name, [1] each, as ``update`` returned them in this step.
    All are float64. In ``others`` they are float32, and ``target`` [G] is available too: the result of ``Loss.target``.
    """

    def __init__(self, cosine: Callable, norm: Callable, states: dict[str, Any], draw: Callable):
        self._makers = {"cosine": cosine, "norm": norm}
        self._draw = draw
        self.states = states
        self.target: Any = None

    def __getattr__(self, name: str):
        # computed when first read: values that a loss does not use cost nothing
        if name in ("cosine", "norm"):
            value = self._makers[name]()
            setattr(self, name, value)
            return value
        raise AttributeError(f"a batch has no {name!r}, it has cosine, norm, states, target and uniform()")

    def uniform(self, stream: int = 0):
        """[G] float64, random numbers between 0 and 1, both exclusive. They differ for each step and ``stream``, and
        are the same on any number of ranks and after a resume."""
        return self._draw(stream)


class Loss:
    """A margin softmax loss: cross entropy of ``scale`` times the cosines, where the cosine with the target class is
    changed by a margin.

    A subclass implements ``target``, and the other methods as needed. They compute static values of Paddle. The
    parameters of the constructor are the options of the loss: they are set by ``classifier.loss_options``, and those
    named margin1, margin2 and margin3 by the keys of these names. The constructor must not use Paddle.

    The classifier supports any number of ranks, sampling, data-parallel mode and blocks of rows without further work.
    Methods return derivatives beside values, because nothing is differentiated automatically (docs/design.md);
    ``plsc.losses.slopes.check_slopes`` compares them with finite differences.

    normalised: False for the softmax of dot products of features and weights with a bias. ``cosine`` is then the dot
    product, there is no scale, and only ``target`` is called.
    elementwise: True promises that ``target`` of a feature depends only on its own cosine and norm, and on the states.
    This saves a sum over the ranks. Each feature's result is taken from the rank that holds its target class.
    kernel_margins: (margin1, margin2, margin3) if ``target`` is cos(margin1 * theta + margin2) - margin3. On GPUs the
    kernel margin_cross_entropy then computes the loss; otherwise ordinary operations do.
    pairwise: True for a PairLoss, which has no distribution over the classes.
    """

    normalised: bool = True
    elementwise: bool = False
    pairwise: bool = False
    kernel_margins: tuple[float, float, float] | None = None

    def target(self, batch: Batch) -> tuple:
        """(cosine with margin [G], its derivative by the cosine [G]), optionally also its derivative by the norm [G].

        ``scale`` times the first is the logit of the target class. All must be finite for every cosine in [-1, 1].
        """
        raise ConfigError(f"loss {type(self).__name__}: write target(self, batch) in the subclass")

    def states(self) -> dict[str, float]:
        """{name: initial value} of the loss's states: numbers kept between steps, saved and resumed."""
        return {}

    def update(self, batch: Batch) -> dict[str, Any]:
        """{name: next value [1]} of every state, from ``batch`` with the states of the previous step.

        It is called first in a step; the other methods see the new states. A skipped step changes no state.
        """
        return {}

    def others(self, cosine, batch: Batch) -> tuple:
        """(replacements of the cosines with all other classes [R, G], their derivatives by them [R, G]), float32.

        ``cosine`` [R, G]: of R class centres and the features. Values of ``batch`` ([G] each) count as constants. The
        results at the target classes are not used.
        """
        return cosine, None

    def penalty(self, batch: Batch) -> tuple:
        """(what is added to the loss of each feature [G], its derivative by the norm [G]).

        The loss is the mean over the global batch. All other values of ``batch`` count as constants.
        """
        raise NotImplementedError

    def overrides(self, method: str) -> bool:
        """Whether the subclass implements this method."""
        return getattr(type(self), method) is not getattr(Loss, method)
