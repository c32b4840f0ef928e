"""Creates the loss of the section ``classifier`` with its margins and options."""

from __future__ import annotations

import difflib
from typing import Any

from plsc.config.format_value import format_value
from plsc.config.schema import DIST_LOSSES, Classifier
from plsc.errors import ConfigError, PlscError
from plsc.registry import LOSSES
from plsc.signatures import accepted, problem_with_options, select_arguments

MARGINS = ("margin1", "margin2", "margin3")
ANY_MARGINS = "combined"  # the loss of any other name, if three margins are given


def make_loss(section: Classifier) -> Any:
    """The plsc.losses.Loss of this section. Raises ConfigError for an invalid name, margins or options."""
    margins = {name: getattr(section, name) for name in MARGINS}
    kind = _loss_class(section.loss_type, margins)
    _check_margins(section.loss_type, kind, margins)
    options = section.loss_options
    problem = problem_with_options(kind, options, {name: f"classifier.{name}" for name in MARGINS})
    where = f"classifier.loss_options={format_value(options)}: loss {section.loss_type!r}"
    if problem:
        raise ConfigError(f"{where}: {problem}")
    try:
        return kind(**select_arguments(kind, margins), **options)
    except PlscError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{where}: its constructor raised {type(error).__name__}: {reason}") from error


def _loss_class(name: str, margins: dict[str, float | None]) -> Any:
    if name in LOSSES:
        return LOSSES.find(name)
    if None not in margins.values():
        return LOSSES.find(ANY_MARGINS)
    known = (*LOSSES.names(), *DIST_LOSSES)
    close = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"classifier.loss_type={format_value(name)}: is none of {', '.join(known)}"
        f"{f' (did you mean {close[0]}?)' if close else ''}, nor one of your own, in a module that `plugins` names; "
        f"any other name needs margin1, margin2 and margin3, and they are {tuple(margins.values())}"
    )


def _check_margins(name: str, kind: Any, margins: dict[str, float | None]) -> None:
    takes, values = accepted(kind, MARGINS), tuple(margins.values())
    if any(margins[one] is not None for one in MARGINS if one not in takes):
        lacks = "margins" if not takes else ", ".join(one for one in MARGINS if one not in takes)
        raise ConfigError(
            f"classifier.loss_type={name!r}: has no {lacks}, but margin1, margin2, margin3 are {values}; leave "
            f"{'them' if not takes else lacks} null"
        )
    missing = [one for one in select_arguments(kind, margins) if margins[one] is None]
    if missing:
        raise ConfigError(
            f"classifier.loss_type={name!r}: needs {', '.join(sorted(missing))}; margin1, margin2, margin3 are {values}"
        )
