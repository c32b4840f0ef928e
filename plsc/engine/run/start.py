"""The start of a run on one rank: its environment, the checks before any data is read, threads."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import paddle

from plsc import checkpoint, remote
from plsc.backend import half_kernels
from plsc.backend.cpu import prepare_cpu, release_free_memory
from plsc.backend.gpu import tune_cudnn
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.run import consistency
from plsc.engine.run.run_dir import lock_run_dir
from plsc.engine.run.run_log import RunLog
from plsc.engine.run.scalars import import_package
from plsc.errors import ConfigError, PeerError, PlscError, TrainingError, first_line
from plsc.extras import install
from plsc.parallel.environment import Environment, cores
from plsc.parallel.group import Group, open_group
from plsc.parallel.launch_logs import hide_secrets


@dataclass(frozen=True)
class Run:
    """The context of every action.

    seed: the one used, also where the configuration leaves it open. start_dir: the checkpoint, or the directory of a
    run, that it starts from, on this machine: ``checkpoint_dir``, or a copy of what lies at its address; "" for none.
    data: records of the data that the run reads, by what they are ("training", a verification set). class_names: the
    names of the classes, by label, where the training data or the checkpoint have them. places: which ranks share
    ``model_save_dir``.
    """

    config: Config
    user_objects: UserObjects
    env: Environment
    group: Group
    log: RunLog
    seed: int
    start_dir: str = ""
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    places: checkpoint.Places = checkpoint.SHARED


@contextlib.contextmanager
def start(config: Config, user_objects: UserObjects, check, continues: bool = False) -> Iterator[Run]:
    """Start a run, end it together with the other ranks, and report a failure to them.

    ``check(config, parts, env)`` looks at the user's data before anything is opened or written, and returns a record
    of each, or None. ``continues``: an open seed is that of the checkpoint that the run goes on from. Raises a
    PlscError, the same on every rank where the cause is the same, and at once in a second thread of a process.
    """
    ugi = config.remote.fs_ugi or ""
    hide_secrets([ugi, ugi.partition(",")[2]])
    group = open_group(Environment.from_launch())
    with group.exclusive_run(), _started(config, user_objects, check, continues, group) as run:
        yield run


@contextlib.contextmanager
def _started(config: Config, user_objects: UserObjects, check, continues: bool, group: Group) -> Iterator[Run]:
    config = config.copy()
    _defer_sigterm(group)
    notes = consistency.require_same_start(config, user_objects, group)
    env, data = group.agree(lambda: _check(config, user_objects, check))
    consistency.require_same_data(data, env.device, group)
    prepare_cpu(threads(config, env))
    if env.on_gpu and config.mixed_precision.enabled:
        notes += tune_cudnn()
    elif config.mixed_precision.enabled:
        notes.append(half_kernels.note(config.mixed_precision.dtype))
    paddle.enable_static()
    asked = config.model_save_dir
    lock, places = lock_run_dir(config, group, env) if continues else (None, checkpoint.SHARED)
    log = RunLog.silent()

    def on_stopped(text: str) -> None:
        log.error(text)
        if lock is not None:
            lock.release()  # nothing else does: the process ends at once

    group.on_stopped = on_stopped
    try:
        group.connect(env)
        log = RunLog(config.model_save_dir, env, group, config.scalars)
        for line in notes:
            log.info(line)
        if config.model_save_dir != asked:
            log.info(f"{asked} holds a run: this one writes to {config.model_save_dir}")
        if continues:
            _watch_stalls(config, group, log)
        run = Run(config, user_objects, env, group, log, seed=0, data=data, places=_checked_places(places, config, log))
        resumes = continues and config.resume == "auto"
        own = checkpoint.newest(config.model_save_dir, group, places) if resumes else None
        run = replace(run, start_dir=remote.fetch_initial_checkpoint(run, own, resumes))
        yield replace(run, seed=_shared_seed(run, own if own or not continues else run.start_dir))
        group.barrier("end of the run")
        group.watch_stalls(0)
    except PlscError as error:
        error = _root_cause(error, group)
        log.error(str(error))
        if isinstance(error, ConfigError):
            log.discard()
        group.fail(str(error))
        raise error from error.__cause__
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        group.fail("stopped by Ctrl-C" if stopped else f"{type(error).__name__}: {first_line(error)}")
        raise
    finally:
        log.close()
        if lock is not None:
            lock.release()
        release_free_memory()


def _checked_places(places: checkpoint.Places, config: Config, log: RunLog) -> checkpoint.Places:
    """The places with ``checkpoint_replicas``, said in the log. Raises ConfigError for more replicas than places."""
    replicas = config.checkpoint_replicas
    if not places.several:
        if replicas:
            log.info(f"checkpoint_replicas={replicas}: has no effect, all ranks share model_save_dir")
        return places
    if replicas >= len(places.all):
        raise ConfigError(
            f"checkpoint_replicas={replicas}: the ranks write to {len(places.all)} directories that they do not share, "
            f"so a shard can have at most {len(places.all) - 1}; set it to that or less"
        )
    log.info(f"model_save_dir is not shared, each machine keeps its part of a checkpoint: {places}")
    return replace(places, replicas=replicas)


def _watch_stalls(config: Config, group: Group, log: RunLog) -> None:
    group.watch_stalls(config.stall_timeout)
    if not group.waits_long:
        log.info(
            "WARNING: the timeout of Gloo cannot be set in this version of Paddle: a rank that is more than 30 s late "
            "ends the run, whatever stall_timeout is"
        )


def _defer_sigterm(group: Group) -> None:
    """SIGTERM ends this process, but not while it is ending by itself: a launcher that sees one rank fail sends it to
    the others, which are about to report why. Replaces Paddle's handler, which prints a stack trace."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
        if not group.is_ending():
            os.kill(os.getpid(), signal.SIGTERM)

    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as far as Python knows: Paddle's is set in C++
    if usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)


def _check(config: Config, user_objects: UserObjects, check) -> tuple[Environment, dict[str, dict[str, Any]]]:
    env = find_environment(config)
    config.check(env.world_size, env.device)
    user_objects.check(config)
    if env.rank == 0:
        import_package(config.scalars)  # before anything is written
    return env, check(config, user_objects, env) or {}


def _root_cause(error: PlscError, group: Group) -> PlscError:
    """The cause of an error: where communication failed, the reason of the rank that ended."""
    reason = group.failure_reason() if isinstance(error, PeerError) else ""
    return TrainingError(f"stopped because of {reason}") if reason else error


def _shared_seed(run: Run, path: str | None) -> int:
    """The seed that rank 0 chooses for all ranks."""
    return run.group.broadcast(run.group.agree(lambda: choose_seed(run.config, path) if run.group.rank == 0 else None))


def choose_seed(config: Config, path: str | None) -> int:
    """The configured seed, else that of the checkpoint, or directory of a run, to continue from, else a random one."""
    if config.seed is not None:
        return config.seed
    if path:
        seed = checkpoint.read_manifest(checkpoint.resolve(path)).random_states.get("seed")
        if isinstance(seed, int):
            return seed
    return int.from_bytes(os.urandom(4), "little") >> 1


def find_environment(config: Config) -> Environment:
    """The environment of this rank, with the device that ``device`` selects. Raises ConfigError, LaunchError."""
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if config.device == "gpu" and not has_gpu:
        raise ConfigError(
            f"device='gpu': Paddle sees no GPU here; on a machine with one {install('gpu')}, or set device: cpu"
        )
    env = Environment.from_launch()
    return replace(env, device="gpu" if has_gpu and config.device != "cpu" else "cpu")


def threads(config: Config, env: Environment) -> int:
    """CPU threads of this rank: as configured, or an equal part of the usable cores of the machine."""
    return config.num_threads or max(1, cores() // env.local_world_size)
