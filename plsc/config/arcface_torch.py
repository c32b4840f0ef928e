"""The settings of an arcface_torch config, read without running it: assignments of literals to `config.NAME`.

Its configs are Python files that arcface_torch imports (utils/utils_config.py): configs/base.py, then the one named.
The defaults here are those of base.py, and are used where no base.py is in the same directory.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from typing import Any

from plsc.config.config import Config
from plsc.config.format_value import format_value
from plsc.errors import ConfigError
from plsc.files import safe_open

BASE = {
    "margin_list": (1.0, 0.5, 0.0), "network": "r50", "resume": False, "save_all_states": False, "output": None,
    "embedding_size": 512, "sample_rate": 1, "interclass_filtering_threshold": 0, "fp16": False, "batch_size": 128,
    "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "verbose": 2000, "frequent": 10,
    "dali": False, "gradient_acc": 1, "seed": 2048, "num_workers": 2, "warmup_epoch": 0, "using_wandb": False,
    "dali_aug": False,
}  # fmt: skip
_REQUIRED = ("num_classes", "num_epoch", "rec")
OPTIMIZERS = {"sgd": "momentum", "adamw": "adamw"}


def _resnet(depth: int) -> dict[str, Any]:
    return {"name": f"ResNet{depth}", "dropout": 0.0, "options": {"bn_epsilon": 1e-5}}


def _vit(size: str, drop_path: float, mask_ratio: float) -> dict[str, Any]:
    """Every mask_ratio above 0 is 0.1 there (backbones/vit.py)."""
    options = {"drop_path": drop_path, "mask_ratio": mask_ratio}
    return {"name": f"ViT-{size}", "recompute": size in "BL", "options": options}  # using_checkpoint there


# network: the section ``model``
NETWORKS: dict[str, dict[str, Any]] = {
    **{f"r{depth}": _resnet(depth) for depth in (18, 34, 50, 100, 200)},
    "mbf": {"name": "WideMobileFaceNet", "options": {"bn_epsilon": 1e-5}},
    "mbf_large": {"name": "LargeMobileFaceNet", "options": {"bn_epsilon": 1e-5}},
    "vit_t": _vit("T", 0.1, 0.1), "vit_t_dp005_mask0": _vit("T", 0.05, 0.0), "vit_s": _vit("S", 0.1, 0.1),
    "vit_s_dp005_mask_0": _vit("S", 0.05, 0.0), "vit_b": _vit("B", 0.1, 0.1),
    "vit_b_dp005_mask_005": _vit("B", 0.05, 0.1), "vit_l_dp005_mask_005": _vit("L", 0.05, 0.1),
}  # fmt: skip
# Keys without an effect here, and why; a note only where they are set to something that matters there.
_WITHOUT_EFFECT = {
    "dali": "images are decoded by worker processes", "dali_aug": "see data.augmentations",
    "using_wandb": "see the setting scalars",
}  # fmt: skip
_SILENT = (
    "save_all_states", "num_image", "warmup_step", "total_step", "total_batch_size", "wandb_key", "suffix_run_name",
    "wandb_entity", "wandb_project", "wandb_log_all", "save_artifacts", "wandb_resume", "notes",
)  # fmt: skip
_OPERATORS = {ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
              ast.Div: lambda a, b: a / b, ast.FloorDiv: lambda a, b: a // b}  # fmt: skip


def convert_arcface_torch(path: str, ranks: int) -> tuple[dict[str, Any], list[str]]:
    """(our settings as nested data, notes about what has no equal) for a run on so many ranks.

    Raises ConfigError, naming file and line, for what is no such config or asks for what PLSC does not have.
    """
    base = os.path.join(os.path.dirname(path), "base.py")
    given = {**BASE}
    if os.path.isfile(base) and os.path.basename(path) != "base.py":
        given.update(read_assignments(base))
    given.update(read_assignments(path))
    missing = [name for name in _REQUIRED if name not in given]
    if missing:
        raise ConfigError(f"{path}: config.{missing[0]} is missing; give a complete config of arcface_torch")
    settings, notes = _settings(path, given, ranks), _notes(given)
    Config.from_dict(settings)
    return settings, notes


def read_assignments(path: str) -> dict[str, Any]:
    """{NAME: value} of every `config.NAME = value`, see _literal. Raises ConfigError for any other statement but
    imports."""
    try:
        tree = ast.parse(safe_open.read_bytes(path, safe_open.YAML))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path}: is no Python file ({type(error).__name__})") from None
    found: dict[str, Any] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        owner = target.value if isinstance(target, ast.Attribute) else target
        if isinstance(owner, ast.Name) and owner.id == "config":
            if isinstance(node, ast.Assign) and isinstance(target, ast.Attribute):
                found[target.attr] = _literal(path, node.value, found)
        elif not _is_plain(node):
            raise ConfigError(f"{path}, line {node.lineno}: only `config.NAME = value` is read, nothing is run")
    return found


def _is_plain(node: ast.stmt) -> bool:
    """An import, or a text that stands alone."""
    return isinstance(node, (ast.Import, ast.ImportFrom)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _literal(path: str, node: ast.expr, found: Mapping[str, Any]) -> Any:
    """A literal, a key that was ``found`` above (`config.NAME`), or sums, products and quotients of numbers."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
        if node.attr in found:
            return found[node.attr]
        raise ConfigError(f"{path}, line {node.lineno}: config.{node.attr} is not set above; write its value out")
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _literal(path, node.left, found), _literal(path, node.right, found)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)) and abs(left) + abs(right) < 1e15:
            try:
                return _OPERATORS[type(node.op)](left, right)
            except ZeroDivisionError:
                pass
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ConfigError(f"{path}, line {node.lineno}: the value is no literal; write it out") from None


def _settings(path: str, given: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    network = given["network"]
    if not isinstance(network, str) or network not in NETWORKS:
        raise ConfigError(f"{path}: network={format_value(network)}: PLSC has {', '.join(NETWORKS)} of these networks")
    if given["optimizer"] not in OPTIMIZERS:
        raise ConfigError(
            f"{path}: optimizer={format_value(given['optimizer'])}: PLSC has {' and '.join(OPTIMIZERS)} of these; see "
            "docs/add_an_optimizer.md"
        )
    if given["sample_rate"] == 0:
        raise ConfigError(f"{path}: sample_rate=0: samples no negatives there; write a rate above 0, such as 0.001")
    batch_size = given["batch_size"]
    if type(batch_size) is not int:
        raise ConfigError(f"{path}: batch_size={format_value(batch_size)} must be a whole number")
    name = os.path.splitext(os.path.basename(path))[0]
    settings: dict[str, Any] = {
        "model_save_dir": given["output"] or f"work_dirs/{name}", "seed": given["seed"],
        "train_batch_size": batch_size, "train_epochs": given["num_epoch"], "lr": given["lr"],
        "lr_reference_batch": batch_size * ranks, "momentum": given["momentum"], "weight_decay": given["weight_decay"],
        "optimizer": {"name": OPTIMIZERS[given["optimizer"]]},
        "grad_clip_norm": 5.0, "test_period": given["verbose"], "log_period": given["frequent"],
        "lr_schedule": {"kind": "polynomial", "power": 1.0},
        "model": {**NETWORKS[network], "embedding_size": given["embedding_size"]},
        "classifier": {"num_classes": given["num_classes"], "sample_ratio": given["sample_rate"],
                       **_loss(path, given["margin_list"])},
        "data": {"num_workers": given["num_workers"]},
    }  # fmt: skip
    if given["interclass_filtering_threshold"]:  # 0 turns it off there
        settings["classifier"]["filter_above"] = given["interclass_filtering_threshold"]
    if given["rec"] == "synthetic":
        settings["data"].update(dataset="synthetic", train_image_num=given.get("num_image"))
    else:
        settings["data"]["dataset_dir"] = given["rec"]
    if given.get("val_targets") is not None:
        settings["data"]["val_targets"] = given["val_targets"]
    warmup = given["warmup_epoch"]  # -1 in 3millions.py: PolynomialLRWarmup then decays as without warm-up
    if warmup and not (type(warmup) is int and warmup < 0):
        settings["lr_schedule"]["warmup_epochs"] = warmup
    if given["fp16"]:
        settings["mixed_precision"] = {"enabled": True}
    if given["resume"]:
        settings["resume"] = "auto"
    Config.from_dict(settings)
    return {**settings, **_accumulation(path, settings, given["gradient_acc"])}


def _accumulation(path: str, settings: Mapping[str, Any], parts: Any) -> dict[str, Any]:
    """The settings that change where a step has several parts: their loss is the mean there too (train_v2.py of
    insightface at 0696141), but each part counts as a step."""
    if type(parts) is not int or parts < 1:
        raise ConfigError(f"{path}: gradient_acc={format_value(parts)} must be a whole number of at least 1")
    if parts == 1:
        return {}
    periods = {key: -(-settings[key] // parts) for key in ("test_period", "log_period")}
    return {"accumulate": parts, "lr_reference_batch": settings["lr_reference_batch"] * parts, **periods}


def _loss(path: str, margins: Any) -> dict[str, Any]:
    """The loss of CombinedMarginLoss: with a third margin the first two are not used there."""
    good = isinstance(margins, (tuple, list)) and len(margins) == 3
    if not good or not all(isinstance(margin, (int, float)) for margin in margins):
        raise ConfigError(f"{path}: margin_list={format_value(margins)} must be three numbers")
    if margins[2] > 0:
        return {"loss_type": "cosface", "margin3": float(margins[2])}
    if margins[0] != 1.0:
        raise ConfigError(f"{path}: margin_list={format_value(margins)}: arcface_torch has no loss with these margins")
    return {"loss_type": "arcface", "margin2": float(margins[1])}


def _notes(given: Mapping[str, Any]) -> list[str]:
    notes = [
        "grad_clip_norm: 5 is over backbone and classifier here, over the backbone there",
        "the gradient of the margin is the true one here; arcface_torch treats the margin as a constant",
    ]
    if given["gradient_acc"] != 1:
        notes.append(
            "accumulate: all parts of a step count as one step here, and share one sample of the classes; there each "
            "part counts and has its own"
        )
    for name, why in _WITHOUT_EFFECT.items():
        if given.get(name) != BASE[name]:
            notes.append(f"config.{name} = {format_value(given[name])}: {why}")
    used = {*BASE, *_REQUIRED, "val_targets", *_SILENT}
    notes += [f"config.{name} = {format_value(given[name])}: not known, not used" for name in given if name not in used]
    return notes
