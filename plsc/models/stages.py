"""The stages of a backbone, for ``model.freeze``, ``lr_factors`` and ``lr_layer_decay``: which variables are in which.

A network declares a stage by building its layers in ``with stage(name)``. What is created there belongs to the stage;
names of variables are not looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plsc.config.stages import ALL, HEAD
from plsc.errors import ConfigError


@dataclass(frozen=True)
class StageSettings:
    """``freeze``: names of stages that are not trained, or ALL alone. ``lr_factors``: {name of a stage, or HEAD: factor
    of the learning rate}. ``layer_decay``: the factor of a stage relative to the next one."""

    freeze: Collection[str] = ()
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0

    @property
    def freezes_all(self) -> bool:
        return ALL in self.freeze


NO_SETTINGS = StageSettings()


class Stages:
    """The stages of a network that is being built. ``members``: {stage: names of its parameters and statistics}, in the
    order of their declaration. ``frozen``: the names of all variables that are not trained. ``boundaries``: the values
    between which ``model.recompute`` computes again, in the order of the network."""

    def __init__(self, settings: StageSettings = NO_SETTINGS):
        self.settings = settings
        self.members: dict[str, list[str]] = {}
        self.frozen: set[str] = set()
        self.boundaries: list[Any] = []
        self._current: str | None = None

    @contextlib.contextmanager
    def stage(self, name: str, is_train: bool) -> Iterator[bool]:
        """Declare that what is built in this context is the stage ``name``. Yields whether its layers are to be in
        training mode: ``is_train``, but False for a frozen stage. Raises ConfigError."""
        if not isinstance(name, str) or not name.isidentifier() or name in (ALL, HEAD):
            raise ConfigError(
                f"model: {name!r:.60} cannot be the name of a stage; use an identifier other than {ALL} and {HEAD}"
            )
        if self._current is not None:
            raise ConfigError(f"model: stage {name} begins inside of stage {self._current}; stages cannot be nested")
        before, self._current = set(_variables()), name
        modes = _training_operations()
        frozen = name in self.settings.freeze
        yield is_train and not frozen
        self._current = None
        self.members.setdefault(name, []).extend(key for key in _variables() if key not in before)
        if frozen and _training_operations() > modes:
            raise ConfigError(
                f"model.freeze: a layer of stage {name} is in training mode although the stage is frozen; call "
                "layer.eval() where `with self.stage(...) as training` gives False"
            )

    def finish(self, model_name: str) -> None:
        """Freeze variables, and scale learning rates, as the settings say; the network is complete. Raises ConfigError
        for an unknown stage."""
        self._check_names(model_name)
        values = _variables()
        for depth, (stage, names) in enumerate(self.members.items(), 1):
            factor = self.settings.lr_factors.get(stage, 1.0)
            factor *= self.settings.layer_decay ** (len(self.members) - depth)
            if stage in self.settings.freeze:
                self.frozen.update(names)
            elif factor != 1.0:
                _scale_learning_rate([values[name] for name in names], factor)
        if self.settings.freezes_all:
            self.frozen.update(values)
        for name in self.frozen:
            values[name].stop_gradient = True
            values[name].trainable = False

    def _check_names(self, model_name: str) -> None:
        if self.settings.layer_decay != 1.0 and len(self.members) < 2:
            raise ConfigError(
                f"lr_layer_decay={self.settings.layer_decay}: model {model_name} has no stages to tell apart; "
                "docs/add_a_backbone.md says how to declare them"
            )
        stages = ", ".join(self.members) or "none (docs/add_a_backbone.md says how to declare them)"
        for key, names, other in (
            ("model.freeze", self.settings.freeze, ALL), ("lr_factors", self.settings.lr_factors, HEAD)
        ):  # fmt: skip
            unknown = [name for name in names if name not in self.members and name != other]
            if unknown:
                raise ConfigError(
                    f"{key}: model {model_name} has no stage {unknown[0]!r:.60}; its stages: {stages}; also allowed: "
                    f"{other}"
                )


def _variables() -> dict[str, Any]:
    import paddle

    from plsc.backend.static import persistables

    return persistables(paddle.static.default_main_program())


def _training_operations() -> int:
    import paddle

    from plsc.models.checks import in_training_mode

    return len(in_training_mode(paddle.static.default_main_program()))


def _scale_learning_rate(values: list, factor: float) -> None:
    """Multiply the factor of a ParamAttr, which every optimizer reads from the parameter."""
    for value in values:
        own = getattr(value, "optimize_attr", None)
        if own is not None:
            value.optimize_attr = {**own, "learning_rate": own.get("learning_rate", 1.0) * factor}
