"""Checks of training and evaluation programs that share their variables."""

from __future__ import annotations

from plsc.errors import ConfigError

# Operations with a training mode; both versions of Paddle have the attribute is_test.
_MODE_DEPENDENT_OPS = ("batch_norm", "sync_batch_norm", "dropout")


def require_inference_mode(program, model_name: str) -> None:
    """Raise ConfigError if an operation of ``program`` is in training mode: it would change statistics or drop out."""
    found = in_training_mode(program)
    if found:
        raise ConfigError(
            f"model {model_name}: {found[0]} is in training mode although is_train is False; "
            "call layer.eval() on every layer when is_train is False"
        )


def in_training_mode(program) -> list[str]:
    """The kinds of the operations of ``program`` that have a training mode and are in it."""
    from plsc.backend.static import is_pir

    found = []
    for op in program.global_block().ops:
        kind = op.name().split(".")[-1].rstrip("_") if is_pir() else op.type
        if kind not in _MODE_DEPENDENT_OPS:
            continue
        attrs = op.attrs() if is_pir() else op.all_attrs()
        if not attrs.get("is_test") and not attrs.get("use_global_stats"):
            found.append(kind)
    return found


def require_no_overwrites(program, model_name: str) -> None:
    """Raise ConfigError if the network overwrites a value, as gradients would be wrong."""
    from plsc.backend.autodiff import has_unsafe_assign

    if has_unsafe_assign(program):
        raise ConfigError(
            f"model {model_name}: paddle.assign(..., output=...) overwrites a value, whose gradient would be wrong; "
            "use the value that paddle.assign or an operation returns"
        )


def require_same_parameters(train_program, eval_program, model_name: str = "") -> None:
    """Raise ConfigError unless both programs have the same parameters and running statistics.

    All of ``eval_program`` must be in ``train_program`` with the same shape, and all of the backbone in
    ``train_program`` must be in ``eval_program``. A layer that exists in one mode only would shift the names of later
    layers, which would then silently use the weights of other layers.
    """
    train, found = _shapes(train_program), _shapes(eval_program)
    differing = [name for name in sorted(found) if train.get(name) != found[name]]
    differing += [name for name in sorted(train) if name.startswith("backbone.") and name not in found]
    if differing:
        name = differing[0]
        raise ConfigError(
            f"model {model_name}: {name} is {train.get(name, 'absent')} in training and {found.get(name, 'absent')} in "
            f"evaluation ({len(differing)} differ); create the same layers in the same order, also with is_train=False"
        )


def _shapes(program) -> dict[str, tuple[int, ...]]:
    """Parameters and running statistics, without the optimizer's state."""
    return {value.name: tuple(value.shape) for value in program.global_block().all_parameters()}
