"""The momentum in a checkpoint_gpu_*.pt of arcface_torch: that of torch.optim.SGD for the backbone and for the classes.

train_v2.py gives the optimizer two groups: the parameters of the backbone, in the order of its state_dict, and the
classes of the rank. torch's momentum_buffer and PLSC's velocity are the same: v := momentum * v + gradient, with the
weight decay in the gradient; w := w - rate * v.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plsc.files.torch_file import Tensor

STATE = "state_optimizer"
BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")  # of a state_dict; no parameters


def backbone_momentum(value: Any, names: Iterable[str]) -> dict[str, Tensor] | None:
    """{parameter: its momentum} of those that have one; None where the file has no momentum of SGD.

    value: what the file holds. names: of the backbone's tensors, in the order of its state_dict.
    """
    parameters = [name for name in names if not name.endswith(BUFFERS)]
    group, state = _group(value, 0)
    if len(group) != len(parameters):
        return None
    found = {name: _buffer(state, number) for name, number in zip(parameters, group)}
    return {name: tensor for name, tensor in found.items() if tensor is not None} or None


def class_momentum(value: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The momentum of a rank's classes; None where the file has none of this shape."""
    group, state = _group(value, 1)
    tensor = _buffer(state, group[0]) if len(group) == 1 else None
    return tensor if tensor is not None and tensor.shape == shape and tensor.is_float else None


def _group(value: Any, number: int) -> tuple[list, dict]:
    """(the numbers of the parameters of this group, the state by these numbers); empty where there are none."""
    stored = value.get(STATE) if isinstance(value, dict) else None
    groups = stored.get("param_groups") if isinstance(stored, dict) else None
    state = stored.get("state") if isinstance(stored, dict) else None
    if not isinstance(groups, list) or len(groups) != 2 or not isinstance(state, dict):
        return [], {}
    group = groups[number].get("params") if isinstance(groups[number], dict) else None
    if not isinstance(group, list) or not all(type(one) is int for one in group):
        return [], {}
    return group, state


def _buffer(state: dict, number: int) -> Tensor | None:
    own = state.get(number)
    tensor = own.get("momentum_buffer") if isinstance(own, dict) else None
    return tensor if isinstance(tensor, Tensor) else None
