"""The section `remote`."""

from __future__ import annotations

import dataclasses

from plsc.config import urls
from plsc.config.option import option


@dataclasses.dataclass(frozen=True)
class Remote:
    """Copies on other machines, see docs/remote.md: an address, or a Hadoop file system as PLSC 0.x named it."""

    save_url: str | None = option(
        None, "Where train() and convert_for_prediction() copy checkpoints and exported models to: "
        "s3://bucket/dir, hdfs://host:port/dir or file:///dir.", filled=True, refuse=urls.problem,
    )  # fmt: skip
    upload: str = option(
        "end", "When checkpoints are copied to `save_url`: end, after the training; every_save, each one when it is "
        "saved, and those deleted here are deleted there. Then `resume: auto` continues from there where "
        "`model_save_dir` has no checkpoint.", choices=("end", "every_save"),
    )  # fmt: skip
    fs_name: str | None = option(
        None, "The Hadoop file system that `fs_dir_for_save` and `fs_checkpoint_dir` are on, as in hdfs://host:port.",
        filled=True, refuse=urls.file_system_problem, setter="set_hdfs_info", attributes=("fs_name",),
    )  # fmt: skip
    fs_ugi: str | None = option(
        None, "User and password on HDFS, as user,password; never printed nor written.", filled=True, secret=True,
        per_rank="a secret is not sent around", setter="set_hdfs_info", attributes=("fs_ugi",),
    )  # fmt: skip
    fs_dir_for_save: str | None = option(
        None, "Like `save_url`, a directory on `fs_name`.", filled=True, refuse=urls.directory_problem,
        setter="set_hdfs_info", attributes=("fs_dir_for_save",),
    )  # fmt: skip
    fs_checkpoint_dir: str | None = option(
        None, "The checkpoint to start from, a directory on `fs_name`. It is copied to `checkpoint_dir` if that is "
        "set, which must not hold anything else.", filled=True, refuse=urls.directory_problem,
        setter="set_hdfs_info", attributes=("fs_checkpoint_dir",),
    )  # fmt: skip
