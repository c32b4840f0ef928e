"""`model.recompute` and `accumulate`: the backbone, or its units, are computed again in the backward pass."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

from plsc.backend import onednn
from plsc.backend.recompute import recompute
from plsc.config import Config
from plsc.engine.program.accumulation import Pass
from plsc.errors import ConfigError
from plsc.parallel.environment import Environment

log = logging.getLogger(__name__)


def recompute_backbone(main, made: Sequence[Pass], image, config: Config, env: Environment) -> None:
    """Change ``main``, which has all gradients, if the settings say so: with several micro-batches each is computed
    again as a whole, and with `model.recompute` by its units. Raises ConfigError for a model whose network has no
    boundaries. ``image``: an input of the program."""
    by_unit = config.model.recompute
    if by_unit and len(made[0].boundaries) < 2:
        raise ConfigError(
            f"model.recompute=True: model {config.model.name} says no parts that can be computed again; call "
            "self.boundary(x) between them (docs/add_a_backbone.md), or leave model.recompute out"
        )
    if len(made) > 1:
        units = [one.boundaries for one in made] if by_unit else ()
        halves = made[0].halves.values()
        kinds = recompute(main, [image, *(one.feature for one in made)], made[-1].feature, units, halves)
    else:
        kinds = recompute(main, made[0].boundaries, made[0].feature) if by_unit else []
    if any("conv2d" in kind for kind in kinds) and config.use_onednn and not env.on_gpu and onednn.is_available():
        _warn_of_onednn("model.recompute=True" if by_unit else f"accumulate={len(made)}")


@functools.cache
def _warn_of_onednn(setting: str) -> None:
    log.warning(
        f"{setting}: oneDNN keeps copies for its convolutions, so it saves little memory on CPUs; set use_onednn: false"
    )
