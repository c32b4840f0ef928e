"""`model.recompute`: the units of the backbone are computed again in the backward pass."""

from __future__ import annotations

import functools
import logging

from plsc.backend import onednn
from plsc.backend.recompute import recompute
from plsc.config import Config
from plsc.errors import ConfigError
from plsc.parallel.environment import Environment

log = logging.getLogger(__name__)


def recompute_backbone(main, boundaries: list, feature, config: Config, env: Environment) -> None:
    """Change ``main``, which has all gradients, if the settings say so. Raises ConfigError for a model whose network
    has no ``boundaries``."""
    if not config.model.recompute:
        return
    if len(boundaries) < 2:
        raise ConfigError(
            f"model.recompute=True: model {config.model.name} says no parts that can be computed again; call "
            "self.boundary(x) between them (docs/add_a_backbone.md), or leave model.recompute out"
        )
    kinds = recompute(main, boundaries, feature)
    if any("conv2d" in kind for kind in kinds) and config.use_onednn and not env.on_gpu and onednn.is_available():
        _warn_of_onednn()


@functools.cache
def _warn_of_onednn() -> None:
    log.warning(
        "model.recompute=True: oneDNN keeps copies for its convolutions, so it saves little memory on CPUs; set "
        "use_onednn: false"
    )
