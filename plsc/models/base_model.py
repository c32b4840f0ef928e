"""BaseModel, the base class of users' models, and build_feature, which builds any model."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from plsc.errors import ConfigError, PlscError, reason_of
from plsc.models.stages import Stages


class BaseModel:
    """Base class of backbones. ``build_network`` appends the network to the default program and returns the feature.

    A subclass defines it in one of two forms:

    - ``build_network(self, input, label, is_train=True)``: ``input`` is the image [B, C, H, W] float32,
      ``label`` [B] int64, or None in programs without labels (evaluation, export);
    - ``build_network(self, input, is_train=True)``: ``input`` has one attribute for each input of the program,
      such as ``input.image`` and ``input.label``.

    It returns the feature [B, E] float32. It is called once for each program and must create its layers each time, the
    same ones in the same order for either value of ``is_train``. With ``is_train`` False, call ``layer.eval()`` on
    every layer.

    ``with self.stage("stem", is_train) as training:`` around the layers of a part of the network makes it a stage that
    ``model.freeze`` and ``lr_factors`` can name; ``training`` is then to be used in place of ``is_train``.
    ``x = self.boundary(x)`` between the parts of the network says what ``model.recompute`` may compute again.
    """

    _stages: Stages | None = None  # of the network that is being built

    def stage(self, name: str, is_train: bool) -> AbstractContextManager[bool]:
        """A context for the layers of the stage ``name``, within ``build_network``. It gives whether they are to be in
        training mode: ``is_train``, but False for a frozen stage. Raises ConfigError for a name that is not an
        identifier, or is `all` or `head`, and for a stage within a stage."""
        return (self._stages or Stages()).stage(name, is_train)

    def boundary(self, value):
        """``value``, as one that ``model.recompute`` keeps: what lies between two boundaries is computed again in the
        backward pass. Call it within ``build_network`` in the order of the network; the first may be the input."""
        if self._stages is not None:
            self._stages.boundaries.append(value)
        return value

    def build_network(self, input, label, is_train: bool = True):
        raise ConfigError(f"model {type(self).__name__}: define build_network in the subclass")


class InputField:
    """The inputs of a program as attributes."""

    def __init__(self, inputs: Mapping[str, Any]):
        self.__dict__.update(inputs)

    def __getattr__(self, name: str):
        raise AttributeError(f"the program has no input {name!r}, it has: {', '.join(self.__dict__)}")


def build_feature(model: BaseModel, inputs: Mapping[str, Any], is_train: bool, stages: Stages | None = None):
    """Append ``model`` to the default main program and return its feature [B, E].

    ``stages``: collects the stages that the model declares, with the settings for them.
    ``inputs`` maps the program's input names ("image", "label", ...) to its data variables. Unnamed layers get the
    same names in every call, as each call numbers them from zero, so training and evaluation programs share their
    variables in one scope. Raises ConfigError for an invalid model.
    """
    import paddle

    from plsc.backend import autodiff
    from plsc.models.checks import require_inference_mode, require_no_overwrites

    takes_label = _takes_label(model)
    stages = Stages() if stages is None else stages
    is_train = is_train and not stages.settings.freezes_all
    _refuse_premade_layers(model, paddle.nn.Layer)
    # The prefix separates these names from those of the rest of the program, which are numbered from zero, too.
    with paddle.utils.unique_name.guard("backbone."), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="When training, we now always track")  # the statistics, as intended
        given: list[Any] = [_image(inputs), inputs.get("label")] if takes_label else [InputField(inputs)]
        model._stages = stages
        try:
            feature = model.build_network(*given, is_train=is_train)  # type: ignore[misc]  # one of two forms
        except PlscError:
            raise
        except Exception as error:
            raise ConfigError(f"model {type(model).__name__}: build_network raised {reason_of(error)}") from error
        finally:
            model._stages = None
    shape = list(getattr(feature, "shape", []))
    if len(shape) != 2 or shape[1] < 1:
        raise ConfigError(
            f"model {type(model).__name__}: build_network returned {shape or type(feature).__name__}, "
            "expected one variable of shape [batch, embedding_size]"
        )
    autodiff.share_parameters(paddle.static.default_main_program())
    stages.finish(type(model).__name__)
    check = require_no_overwrites if is_train else require_inference_mode
    check(paddle.static.default_main_program(), type(model).__name__)
    return feature


def _image(inputs: Mapping[str, Any]):
    """The input "image", or the only input besides the label."""
    others = [name for name in inputs if name != "label"]
    if "image" not in inputs and len(others) != 1:
        raise ConfigError(
            f"model: build_network(input, label, is_train) needs one input besides label, the program has {others}; "
            "name it `image` or write build_network(input, is_train)"
        )
    return inputs["image"] if "image" in inputs else inputs[others[0]]


def _takes_label(model: BaseModel) -> bool:
    """True for ``build_network(input, label, is_train)``, False for ``build_network(input, is_train)``."""
    return len(require_build_network(f"model {type(model).__name__}", model.build_network)) == 2


def require_build_network(what: str, build_network: Callable, skip: int = 0) -> list[str]:
    """Return the input names of ``build_network``. Raises ConfigError that begins with ``what`` for other forms.

    skip: 1 for an unbound method, whose first parameter is the model.
    """
    parameters = list(inspect.signature(build_network).parameters.values())[skip:]
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    inputs = [name for name in names if name != "is_train"]
    if "is_train" not in names or len(inputs) not in (1, 2):
        raise ConfigError(
            f"{what}: build_network takes ({', '.join(names)}); allowed: "
            "(input, label, is_train=True) or (input, is_train=True)"
        )
    return inputs


def _refuse_premade_layers(model: BaseModel, layer_type: type) -> None:
    """Raise ConfigError for layers created before the program: their variables are not in it."""
    ready = [name for name, value in vars(model).items() if isinstance(value, layer_type)]
    if ready or isinstance(model, layer_type):
        raise ConfigError(
            f"model {type(model).__name__}: {', '.join(ready) or 'it'} is a paddle.nn.Layer created before the "
            "program; create the layers inside build_network"
        )
