"""PairLoss, the base class of losses that judge each pair of a feature and a class on its own."""

from __future__ import annotations

from plsc.errors import ConfigError
from plsc.losses.base import Loss


class PairLoss(Loss):
    """A sum of binary losses instead of a softmax: is this feature of this class, asked for each class of the step.

    With the target cosine t of ``target``, the other cosines c_j of ``others``, both with their margins, the scale s
    and a bias b that is common to all classes, the loss of a feature is

        positive * softplus(-(s t + b)) + negative * sum_j softplus(s c_j + b),    softplus(x) = log(1 + exp(x))

    ``positive`` and ``negative`` are the ``weights``. With sampling the sum is that over the sampled classes: it is not
    divided by the sampled fraction.

    The bias is a number of the checkpoint, the same on every rank. It follows its gradient g, the derivative of the
    mean loss of the global batch, by gradient descent without momentum or weight decay,

        b := b - learning rate * bias_rate * min(max(g, -positive), positive)

    where without class weights g >= -positive always holds, so what is limited is a first step from features that are
    near to many classes.

    bias_rate: an attribute; 0 keeps ``initial_bias``.
    """

    pairwise = True
    bias_rate: float = 1.0

    def weights(self, scale: float) -> tuple[float, float]:
        """(the weight of the pair with the target class, that of each other pair), both above 0."""
        return 1.0, 1.0

    def initial_bias(self, scale: float, num_classes: int) -> float:
        """b of the first step. ``num_classes``: the classes of a step, with sampling those of the sample."""
        raise ConfigError(f"loss {type(self).__name__}: write initial_bias(self, scale, num_classes) in the subclass")
