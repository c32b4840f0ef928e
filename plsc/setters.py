"""The setters of Entry: each changes configuration keys or one user object, nothing else. plsc.config checks them.

A wrong value is refused at once with a ConfigError. Units, ranges and defaults: docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from plsc.config import OPTIONS, Config
from plsc.config.user_objects import UserObjects, checked_object
from plsc.errors import ConfigError


class Setters:
    """The base class of Entry with its setters. Names and argument order are those of PLSC 0.1 and 0.2."""

    _config: Config
    _user_objects: UserObjects

    def set(self, key: str, value: Any) -> None:
        """Set any key by its dotted name, as in `set("data.random_flip", False)`."""
        self._config.set(key, value, "set()")

    def set_seed(self, seed: int | None) -> None:
        """The random seed; None draws one at the start."""
        self._set("seed", seed)

    def set_device(self, device: str) -> None:
        """ "auto", "cpu" or "gpu"."""
        self._set("device", device)

    def set_model_save_dir(self, model_save_dir: str) -> None:
        """The directory of checkpoints, logs and exported models."""
        self._set("model_save_dir", model_save_dir)

    def set_checkpoint_dir(self, checkpoint_dir: str) -> None:
        """The checkpoint to start from, a directory or an address (s3://, hdfs://, file://); "" for none."""
        self._set("checkpoint_dir", checkpoint_dir)

    def set_max_last_checkpoint_num(self, num: int) -> None:
        """How many of the newest checkpoints are kept; 0 or less keeps all."""
        self._set("max_last_checkpoint_num", num)

    def set_train_batch_size(self, batch_size: int) -> None:
        """Images of a training step on each rank."""
        self._set("train_batch_size", batch_size)

    def set_test_batch_size(self, batch_size: int) -> None:
        """Images of a verification step on each rank."""
        self._set("test_batch_size", batch_size)

    def set_train_epochs(self, num: int) -> None:
        """The length of the run in epochs; replaces a length in steps."""
        self._set("train_epochs", num)

    def set_train_steps(self, num: int) -> None:
        """The length of the run in steps, to the step; replaces a length in epochs."""
        self._set("train_steps", num)

    def set_lr(self, lr: float) -> None:
        """The learning rate for a global batch of `lr_reference_batch` (512) images."""
        self._set("lr", lr)

    def set_momentum(self, momentum: float) -> None:
        """The momentum coefficient."""
        self._set("momentum", momentum)

    def set_weight_decay(self, weight_decay: float) -> None:
        """The coefficient of the L2 penalty."""
        self._set("weight_decay", weight_decay)

    def set_warmup_epochs(self, num: float) -> None:
        """The learning rate rises from 0 to its full value over this many epochs."""
        self._set("lr_schedule.warmup_epochs", num)

    def set_step_boundaries(self, boundaries: tuple[int, ...]) -> None:
        """The steps at which the learning rate falls. For boundaries in epochs set `lr_schedule.unit`."""
        self._update("set_step_boundaries", {"lr_schedule.boundaries": boundaries, "lr_schedule.unit": "step"})

    def set_lr_decay_factor(self, factor: float) -> None:
        """The factor of the learning rate at each boundary."""
        self._set("lr_schedule.decay_factor", factor)

    def set_log_period(self, period: int) -> None:
        """Log a line every `period` steps."""
        self._set("log_period", period)

    def set_test_period(self, period: int) -> None:
        """Verify every `period` steps; 0 verifies only at the end."""
        self._set("test_period", period)

    def set_with_test(self, with_test: bool) -> None:
        """Verify while training."""
        self._set("with_test", with_test)

    def set_calc_acc(self, calc: bool) -> None:
        """Log the accuracy on the training batches."""
        self._set("calc_acc", calc)

    def set_model_name(self, model_name: str) -> None:
        """The backbone by its name; replaces a model given by set_model."""
        self._set("model.name", model_name)
        self._user_objects.model = None

    def set_model(self, model: Any) -> None:
        """Your own model, an instance of plsc.models.BaseModel; None returns to the one of set_model_name."""
        self._user_objects.model = checked_object("model", model)

    def set_emb_size(self, emb_size: int) -> None:
        """The length of the feature. Your own model must return features of this length."""
        self._set("model.embedding_size", emb_size)

    def set_image_shape(self, shape: tuple[int, int, int]) -> None:
        """(channels, height, width)."""
        self._set("model.image_shape", shape)

    def set_data_format(self, data_format: str | None) -> None:
        """ "NCHW" or "NHWC", inside the backbone; None: NHWC with mixed precision."""
        self._set("model.data_format", data_format)

    def set_input_info(self, input_info: list[dict]) -> None:
        """The inputs of your own model: a list of {"name", "shape", "dtype"}, one of them named label."""
        self._set("model.input_info", input_info)

    def set_class_num(self, num: int) -> None:
        """The number of classes."""
        self._set("classifier.num_classes", num)

    def set_loss_type(
        self,
        loss_type: str,
        margin1: float | None = None,
        margin2: float | None = None,
        margin3: float | None = None,
        **options: Any,
    ) -> None:
        """The loss by name: arcface, cosface, sphereface, softmax, dist_arcface and dist_softmax of PLSC 0.1, your own
        loss from a module in `plugins`, or any other name with three margins. Omitted margins are the loss's defaults.
        options: options of your own loss."""
        loss = {"loss_type": loss_type, "margin1": margin1, "margin2": margin2, "margin3": margin3}
        self._update("set_loss_type", {"classifier": {**loss, "loss_options": options}})

    def set_scale(self, scale: float) -> None:
        """The factor of the cosines before the softmax."""
        self._set("classifier.scale", scale)

    def set_sample_ratio(self, sample_ratio: float) -> None:
        """The fraction of the classes used in a step; below 1 this is Partial FC."""
        self._set("classifier.sample_ratio", sample_ratio)

    def set_model_parallel(self, model_parallel: bool) -> None:
        """Each rank holds a part of the classes (True) or all of them (False)."""
        self._set("classifier.model_parallel", model_parallel)

    def set_distfc_attr(self, param_attr: Any = None, bias_attr: Any = None) -> None:
        """paddle.ParamAttr of the classifier's weight and, for softmax, of its bias; None for the defaults."""
        param, bias = checked_object("param_attr", param_attr), checked_object("bias_attr", bias_attr)
        self._user_objects.param_attr, self._user_objects.bias_attr = param, bias

    def set_optimizer(self, optimizer: Any) -> None:
        """An instance of paddle.optimizer.Optimizer with its own learning rate; None returns to momentum."""
        self._user_objects.optimizer = checked_object("optimizer", optimizer)

    def set_dataset_dir(self, dataset_dir: str) -> None:
        """The directory of the images, the list and the verification sets."""
        self._set("data.dataset_dir", dataset_dir)

    def set_train_image_num(self, num: int | None) -> None:
        """The number of training images; None counts them."""
        self._set("data.train_image_num", num)

    def set_num_workers(self, num_workers: int) -> None:
        """Worker processes per rank that read and decode images."""
        self._set("data.num_workers", num_workers)

    def set_val_targets(self, targets: str | list[str]) -> None:
        """The names of the verification sets: a list, or one text with commas."""
        self._set("data.val_targets", targets)

    def set_mixed_precision(
        self,
        use_fp16: bool,
        init_loss_scaling: float | None = None,
        incr_every_n_steps: int | None = None,
        decr_every_n_nan_or_inf: int | None = None,
        incr_ratio: float | None = None,
        decr_ratio: float | None = None,
        use_dynamic_loss_scaling: bool | None = None,
        amp_lists: Any = None,
        dtype: str | None = None,
        level: str | None = None,
    ) -> None:
        """Mixed precision; settings that are None stay unchanged. amp_lists:
        paddle.static.amp.AutoMixedPrecisionLists, or a mapping of custom_white_list and custom_black_list. dtype:
        "float16" or "bfloat16". level: "O1" or "O2"."""
        values = {
            "dtype": dtype,
            "level": level,
            "init_loss_scaling": init_loss_scaling,
            "incr_every_n_steps": incr_every_n_steps,
            "decr_every_n_nan_or_inf": decr_every_n_nan_or_inf,
            "incr_ratio": incr_ratio,
            "decr_ratio": decr_ratio,
            "use_dynamic_loss_scaling": use_dynamic_loss_scaling,
            **_op_lists(amp_lists),
        }
        given = {name: value for name, value in values.items() if value is not None}
        self._update("set_mixed_precision", {"mixed_precision": {"enabled": use_fp16, **given}})

    def set_hdfs_info(
        self, fs_name: str, fs_ugi: str | None, fs_dir_for_save: str | None = None, fs_checkpoint_dir: str | None = None
    ) -> None:
        """The Hadoop file system for copies of checkpoints and exported models, and for the checkpoint to start from.
        fs_ugi is "user,password", or None."""
        values = {
            "fs_name": fs_name,
            "fs_ugi": fs_ugi,
            "fs_dir_for_save": fs_dir_for_save,
            "fs_checkpoint_dir": fs_checkpoint_dir,
        }
        self._update("set_hdfs_info", {"remote": values})

    def set_use_quant(self, use_quant: bool) -> None:
        """Has no effect, as in PLSC 0.2: only False is accepted."""
        if use_quant is not False:
            raise ConfigError(f"set_use_quant(): use_quant={use_quant!r}: there is no quantised training; only False")

    def _set(self, key: str, value: Any) -> None:
        self._config.set(key, value, f"{OPTIONS[key].setter}()")

    def _update(self, setter: str, mapping: Mapping[str, Any]) -> None:
        self._config.update(mapping, f"{setter}()")

    def _attribute_setters(self) -> dict[str, Callable[[Any], None]]:
        """The attributes of PLSC 0.x that set more than one key, and their setters."""
        return {
            "model": self.set_model,
            "optimizer": self.set_optimizer,
            "model_name": self.set_model_name,
            "loss_type": self.set_loss_type,
            "lr_steps": self.set_step_boundaries,
        }


def _op_lists(amp_lists: Any) -> dict[str, list[str]]:
    """Paddle's lists as the two configuration keys."""
    if amp_lists is None:
        return {}
    if isinstance(amp_lists, Mapping):
        return dict(amp_lists)
    if not hasattr(amp_lists, "white_list") or not hasattr(amp_lists, "black_list"):
        raise ConfigError(
            f"set_mixed_precision(): amp_lists: got {type(amp_lists).__name__}, must be "
            "paddle.static.amp.AutoMixedPrecisionLists or a mapping of custom_white_list and custom_black_list"
        )
    return {"custom_white_list": sorted(amp_lists.white_list), "custom_black_list": sorted(amp_lists.black_list)}
