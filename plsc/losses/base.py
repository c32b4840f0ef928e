"""Loss, what authors of losses derive from, and Batch, what a loss is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc.errors import ConfigError


class Batch:
    """What a loss knows of a batch: values of the static program, one number for each feature of the global batch.

    ``cosine`` [G]: of each feature with the centre of its own class. ``norm`` [G]: the length of each feature. Both are
    the same on every rank. ``states``: the loss's states by name, [1] each, as ``update`` has left them in this step.
    All are float64, but in ``others``, which gets them in float32 and has ``target`` as well: [G], what ``Loss.target``
    made of the cosines.
    """

    def __init__(self, cosine: Callable, norm: Callable, states: dict[str, Any], draw: Callable):
        self._makers = {"cosine": cosine, "norm": norm}
        self._draw = draw
        self.states = states
        self.target: Any = None

    def __getattr__(self, name: str):
        # what a loss does not ask for costs nothing: a value is made when it is first read
        if name in ("cosine", "norm"):
            value = self._makers[name]()
            setattr(self, name, value)
            return value
        raise AttributeError(f"a batch has no {name!r}, it has cosine, norm, states, target and uniform()")

    def uniform(self, stream: int = 0):
        """[G] float64, random numbers between 0 and 1, both exclusive: other ones in each step and for each
        ``stream``, the same on any number of ranks and after a resume."""
        return self._draw(stream)


class Loss:
    """A loss of margin softmax type: cross entropy of ``scale`` times the cosines, with another own (target) cosine.

    A subclass writes ``target``, and what else it needs of the other methods. Their values are static values of Paddle.
    The parameters of its constructor are the options of the loss. They are set by ``classifier.loss_options``, and
    those named margin1, margin2 and margin3 by the keys of these names. The constructor must not use Paddle.

    The classifier does the rest: any number of ranks, sampling, data-parallel mode, blocks of rows. What a method
    gives beside a value is its derivative, because nothing is differentiated here (docs/design.md);
    ``plsc.losses.slopes.check_slopes`` compares it with finite differences.

    normalised: False for the softmax of the products of features and weights with a bias. ``cosine`` is the product
    then, there is no scale, and ``target`` is all that is asked for.
    elementwise: True promises that ``target`` of a feature depends on its own cosine and norm, and on the states, only.
    This saves a sum over the ranks; of features whose class another rank holds, that rank's result counts.
    kernel_margins: (margin1, margin2, margin3) where ``target`` is cos(margin1 * theta + margin2) - margin3. On GPUs
    the kernel margin_cross_entropy then computes the loss; without, ordinary operations do it.
    """

    normalised: bool = True
    elementwise: bool = False
    kernel_margins: tuple[float, float, float] | None = None

    def target(self, batch: Batch) -> tuple:
        """(the cosine with margin [G], its derivative by the cosine [G]), or as a third its derivative by the norm [G].

        ``scale`` times the first is the logit of the own class. Both are finite for every cosine in [-1, 1].
        """
        raise ConfigError(f"loss {type(self).__name__}: write target(self, batch) in the subclass")

    def states(self) -> dict[str, float]:
        """{name: first value} of the numbers that the loss keeps from step to step. They are saved and resumed."""
        return {}

    def update(self, batch: Batch) -> dict[str, Any]:
        """{name: next value [1]} of every state, from ``batch`` with the states of the step before.

        It is called first in a step: the other methods get the new ones. A step that is skipped changes no state.
        """
        return {}

    def others(self, cosine, batch: Batch) -> tuple:
        """(what stands for the cosines with all other classes [R, G], its derivative by them [R, G]), float32.

        ``cosine`` [R, G]: of R rows, those of some classes, with the features. What is taken from ``batch``, [G] each,
        counts as a constant. The values at the own classes are not used.
        """
        return cosine, None

    def penalty(self, batch: Batch) -> tuple:
        """(what is added to the loss of each feature [G], its derivative by the norm [G]); the mean over the global
        batch counts. What it takes from elsewhere than the norm is a constant."""
        raise NotImplementedError

    def overrides(self, method: str) -> bool:
        """Whether the subclass has written this method."""
        return getattr(type(self), method) is not getattr(Loss, method)
