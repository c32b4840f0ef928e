"""A machine and its ranks, checked in a minute: plsc doctor --ranks 2, plsc doctor --devices 0,1,2,3

Prints a line for each check: versions, the wheel against GPU and driver, compiler, decoding, shared memory, open files,
disk; then on all ranks: the ring, matrix products (TF32), the way from the host, the classifier's kernels against
NumPy, steps of a ResNet50, and which of the kernels to set. The exit status is 1 where a check has failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from plsc.cli.launching import program
from plsc.cli.options import STDOUT, add_json, check_json, print_json
from plsc.errors import ConfigError
from plsc.parallel.launcher import is_rank
from plsc.terminal import print_stdout

SECONDS = 600  # for all checks of the ranks; without a GPU they take less than a minute


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", metavar="N", type=int, help="processes on this machine; default: 1, or --devices")
    parser.add_argument("--devices", metavar="0,1,...", help="GPUs of this machine, one process each")
    parser.add_argument("--output", metavar="DIR", default=".", help="where checkpoints will be; default: here")
    parser.add_argument("--seconds", metavar="N", type=float, default=SECONDS,
                        help=f"end the checks of the ranks after so long; default: {SECONDS}")  # fmt: skip
    parser.add_argument("--as-rank", metavar="FILE", help=argparse.SUPPRESS)
    add_json(parser)
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> int:
    from plsc.backend.paddle_version import require_paddle
    from plsc.engine.doctor.findings import FAIL

    require_paddle()
    if options.as_rank:
        return _as_rank(options.as_rank)
    ranks = _ranks(options)
    check_json(options)
    findings = []
    for found in _findings(options, ranks):
        findings.append(found)
        if options.json != STDOUT:  # as soon as it is known: the ranks may take minutes
            print_stdout(str(found))
    print_json(options, {"findings": [dataclasses.asdict(found) for found in findings]})
    return 1 if any(found.status == FAIL for found in findings) else 0


def _ranks(options: argparse.Namespace) -> int:
    cards = options.devices.split(",") if options.devices is not None else []
    if not all(card.isdecimal() for card in cards):
        options.refuse(f"--devices {options.devices}: must be numbers of GPUs with commas between, as in 0,1,2,3")
    if options.ranks is not None and (options.ranks < 1 or (cards and options.ranks != len(cards))):
        options.refuse(f"--ranks {options.ranks}: must be at least 1, and as many as --devices")
    if not options.seconds > 0:
        options.refuse(f"--seconds {options.seconds}: must be above 0")
    if is_rank():
        raise ConfigError("plsc doctor: this process is a rank of a launcher already: run it without one, with --ranks")
    return options.ranks or len(cards) or 1


def _findings(options: argparse.Namespace, ranks: int) -> Iterator:
    """Each when its check is done, those of the ranks together."""
    from plsc.engine.doctor.machine import machine_checks

    for check in machine_checks(options.output, ranks):
        yield check.find()
    yield from _of_ranks(options, ranks)


def _of_ranks(options: argparse.Namespace, ranks: int) -> list:
    """Checked by other processes: a kernel that crashes ends these only."""
    from plsc.engine.doctor.ranks import FAILED, read_findings

    with tempfile.TemporaryDirectory(prefix="plsc-doctor-") as folder:
        file, log = os.path.join(folder, "findings"), os.path.join(folder, "log")
        with open(file, "w", encoding="utf-8"):
            pass
        devices = ["--devices", options.devices] if options.devices else ["--nproc_per_node", str(ranks)]
        command = [sys.executable, "-m", "plsc.launch", *devices, "--log_dir", folder, "--log_level", "WARNING"]
        with open(log, "w+b") as output:
            ended = _run([*command, *program(), "doctor", "--as-rank", file], output, options.seconds)
            output.seek(0)
            lines = output.read().decode("utf-8", "replace").splitlines()
        lines = [line.strip() for line in lines + _logs(folder) if line.strip()]
        said = [line for line in lines if line.startswith(FAILED)] or lines or ["the ranks said nothing"]
        reason = said[-1][:300] if ended else f"no answer within {options.seconds:g} s; {said[-1][:200]}"
        more = "" if ended else f"on a slow or busy machine, --seconds above {options.seconds:g}; "
        return read_findings(file, reason, more)


def _logs(folder: str) -> list[str]:
    """The lines of the ranks' own logs."""
    from plsc.files import safe_open

    found: list[str] = []
    for name in sorted(os.listdir(folder)):
        if name.startswith("workerlog."):
            with safe_open.open_text(os.path.join(folder, name), safe_open.LIST) as lines:
                found += lines.read().splitlines()
    return found


def _run(command: list[str], output, seconds: float) -> bool:
    """False where it had to be ended."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    with subprocess.Popen(command, start_new_session=True, **streams) as ran:
        try:
            ran.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            if ran.poll() is None:  # ranks end with their launcher
                os.killpg(ran.pid, signal.SIGKILL)


def _as_rank(file: str) -> int:
    import paddle

    from plsc.backend.cpu import prepare_cpu
    from plsc.config import Config
    from plsc.engine.doctor.rank import Place
    from plsc.engine.doctor.ranks import run_checks
    from plsc.engine.run.start import find_environment, threads
    from plsc.parallel.group import connected_group

    config = Config()
    env = find_environment(config)
    prepare_cpu(threads(config, env))
    paddle.enable_static()
    run_checks(Place(env, env, connected_group(env)), file)
    return 0
