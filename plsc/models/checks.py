"""What a training and an evaluation program that share their variables must keep to."""

from __future__ import annotations

from plsc.errors import ConfigError

# Operations that behave differently in training; both versions tell by the attribute is_test.
_MODE_DEPENDENT_OPS = ("batch_norm", "sync_batch_norm", "dropout")


def require_inference_mode(program, model_name: str) -> None:
    """Raise ConfigError if an operation of ``program`` still trains: it would change statistics or drop features."""
    from plsc.backend.static import is_pir

    for op in program.global_block().ops:
        kind = op.name().split(".")[-1].rstrip("_") if is_pir() else op.type
        if kind not in _MODE_DEPENDENT_OPS:
            continue
        attrs = op.attrs() if is_pir() else op.all_attrs()
        if not attrs.get("is_test") and not attrs.get("use_global_stats"):
            raise ConfigError(
                f"model {model_name}: {kind} trains although is_train is False; "
                "call layer.eval() on every layer when is_train is False"
            )


def require_no_overwrites(program, model_name: str) -> None:
    """Raise ConfigError if the net writes over its values: gradients would be wrong."""
    from plsc.backend.autodiff import has_unsafe_assign

    if has_unsafe_assign(program):
        raise ConfigError(
            f"model {model_name}: paddle.assign(..., output=...) writes over a value, of which no gradient can be "
            "taken; go on with what paddle.assign or an operation returns"
        )


def require_same_parameters(train_program, eval_program, model_name: str = "") -> None:
    """Raise ConfigError unless the evaluation program's parameters and statistics are the training program's.

    Every one of ``eval_program`` must be in ``train_program`` with the same shape, and every one that the
    backbone made for training must be in the evaluation program: a layer that exists in one mode only shifts the
    names of those that follow, which would then read the weights of another layer without an error.
    """
    train, found = _shapes(train_program), _shapes(eval_program)
    differing = [name for name in sorted(found) if train.get(name) != found[name]]
    differing += [name for name in sorted(train) if name.startswith("backbone.") and name not in found]
    if differing:
        name = differing[0]
        raise ConfigError(
            f"model {model_name}: {name} is {train.get(name, 'absent')} in training and {found.get(name, 'absent')} in "
            f"evaluation ({len(differing)} differ); make the same layers in the same order whatever is_train says"
        )


def _shapes(program) -> dict[str, tuple[int, ...]]:
    """Parameters and running statistics, without the optimizer's state."""
    return {value.name: tuple(value.shape) for value in program.global_block().all_parameters()}
