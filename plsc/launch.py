"""Paddle's launcher, with a stop that saves: python -m plsc.launch --nproc_per_node 2 train.py

The options are those of `python -m paddle.distributed.launch`. The difference: SIGTERM, SIGHUP and Ctrl-C are forwarded
to the ranks, the launcher waits until they have saved, and exits with 75 (stopped and saved). Paddle's launcher kills
the ranks after 30 seconds and exits with the number of the signal. The log of a failed rank is printed once.

Two more options come before the script: --port-range FIRST-LAST, the ports of the launch, and --interface NAME, the
network interface of this machine. --master takes a name as well.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from plsc.backend.paddle_version import require_paddle
from plsc.engine.run.stopping import EXIT_STOPPED, REPEATS_SECONDS
from plsc.errors import LaunchError, PlscError
from plsc.parallel.addresses import Rendezvous, address_of, find_own_address, find_rendezvous
from plsc.parallel.environment import PORT_VARIABLE, Environment, read_port_range
from plsc.parallel.excepthook import EXIT_UNVERIFIED, install_excepthook
from plsc.parallel.hello import TOKEN
from plsc.parallel.launch_options import LaunchOptions, take_options
from plsc.parallel.launcher import mark_as_launcher
from plsc.parallel.on_behalf import report_ended
from plsc.parallel.ports import advised_local_ports, free_ports, outside_local_ports
from plsc.parallel.rendezvous import meet_by, reported_to_launchers
from plsc.terminal import flush_or_discard, print_stderr, print_stdout, write_stderr

_ETCD = "etcd://"
_POLL_SECONDS = 0.2
_HOST = socket.gethostname()
_REASON_SECONDS = 2.0
# Which signal the ranks get for one; a closed terminal (SIGHUP) is a request to stop like any other.
_FORWARDED = {signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM, signal.SIGINT: signal.SIGINT}


def main() -> None:
    """Launch as the command line says; ends the process."""
    raise SystemExit(launch(sys.argv[1:]))


def launch(arguments: list[str]) -> int:
    """Launch as Paddle's launcher would with these arguments; returns the status of the process, or ends it."""
    install_excepthook()
    if arguments[:1] in (["-h"], ["--help"]):
        print_stdout(f"{__doc__}")  # Paddle's options follow
    require_paddle()
    mark_as_launcher()
    from paddle.distributed.launch.context import Context
    from paddle.distributed.launch.main import launch as launch_by_paddle

    options, arguments = take_options(arguments)
    sys.argv = [sys.argv[0], *arguments]  # both versions read nothing else
    context = Context()
    master, machines = context.args.master, _most_machines(context)
    if master is not None and master.startswith(_ETCD):
        master = None  # etcd is no place for messages
    with reported_to_launchers(master, machines, options.interface):
        return _launch(context, options, launch_by_paddle)


def _launch(context: Any, options: LaunchOptions, launch_by_paddle: Callable[[], Any]) -> int:
    _require_devices(context.args.devices, list(context.node.device.labels))
    if context.is_legacy_mode() or context.is_auto_tuner_mode():
        return launch_by_paddle()  # neither starts ranks in a way that is known here
    from paddle.distributed.launch import controllers
    from paddle.distributed.launch.job.container import Container

    _set_addresses(context, options, controllers.master)
    _set_token(context)
    _make_private(context.args.log_dir)
    handled = handled_signals()  # before Paddle's own handlers are in their place
    controller = controllers.init(context)
    # Paddle's would write all variables of the environment, keys and passwords too, to files that everybody can read.
    controller.save_pod_env, controller.save_pod_log = lambda: None, lambda info: None
    Container.__str__ = _container_status  # Paddle 2.6 prints them where a rank fails
    Container.tail = functools.partialmethod(_print_failed_log, controller.pod, Container.tail)
    stop = StopForwarder(controller, handled)
    try:
        controller.run()
        controller.finalize(exit=False)
    except (SystemExit, LaunchError) as error:
        if isinstance(error, LaunchError):
            time.sleep(_REASON_SECONDS)  # in which the launchers of other machines read it too
        controller.watcher.stop()
        controller.master.stop()
        raise
    finally:
        flush_or_discard()
    return stop.status()


def _set_token(context: Any) -> None:
    """Give the ranks of one machine a secret by which they know one another; on several ones the user may set it."""
    one_machine = str(context.args.nnodes) == "1" and not context.args.ips
    if one_machine and not context.envs.get(TOKEN):
        context.set_envs({TOKEN: secrets.token_hex(16)})


def _set_addresses(context: Any, options: LaunchOptions, master_module: Any) -> None:
    """Set this machine's address, the rendezvous and the ports of Paddle's launcher. Raises LaunchError."""
    arguments, most = context.args, _most_machines(context)
    ports, meets = options.ports or read_port_range(context.envs), None
    if most > 1:
        if not arguments.master:
            raise LaunchError(f"--nnodes {arguments.nnodes} needs --master HOST:PORT, the same on every machine")
        meets = find_rendezvous(arguments.master.removeprefix(_ETCD), options.interface, arguments.host)
        context.node.ip = meets.own
        if not arguments.master.startswith(_ETCD):
            arguments.master = meets.endpoint
            meet_by(master_module, most, meets.own)
    elif arguments.ips:
        context.node.ip = find_own_address(arguments.ips.split(","))
    elif options.interface:
        context.node.ip = address_of(options.interface)
    elif not arguments.host:
        context.node.ip = "127.0.0.1"  # other machines have no business here
    if options.interface:
        context.set_envs({"NCCL_SOCKET_IFNAME": context.envs.get("NCCL_SOCKET_IFNAME", f"={options.interface}")})
    if ports:
        _set_ports(context, ports, meets)


def _most_machines(context: Any) -> int:
    return int(str(context.args.nnodes).split(":")[-1])  # "2:4" is elastic


def _set_ports(context: Any, ports: range, meets: Rendezvous | None) -> None:
    """Take all ports from ``ports``, here and in the ranks. Raises LaunchError where the rendezvous is outside."""
    text = f"{ports[0]}-{ports[-1]}"
    if meets is not None and not context.args.master.startswith(_ETCD) and meets.port not in ports:
        raise LaunchError(f"--master {context.args.master}: its port must be one of --port-range {text}")
    context.set_envs({PORT_VARIABLE: text})
    taken = () if meets is None else (meets.port,)
    context.node.get_free_port = functools.partial(next, free_ports(ports, but=taken))
    other = outside_local_ports(ports)
    if meets is not None and other is not None:
        advised = advised_local_ports(ports)
        print_stderr(
            f"plsc.launch: Gloo and NCCL listen on any port of {other[0]}-{other[-1]} (net.ipv4.ip_local_port_range), "
            f"not only of --port-range {text}: let a firewall pass these too, or set "
            f"sysctl -w net.ipv4.ip_local_port_range='{advised[0]} {advised[-1]}' on every machine"
        )


def handled_signals() -> list[signal.Signals]:
    """Those of _FORWARDED that this process handles: not SIGHUP under nohup, nor Ctrl-C as a script's `command &`."""
    return [n for n in _FORWARDED if n == signal.SIGTERM or signal.getsignal(n) is not signal.SIG_IGN]


def _require_devices(devices: str | None, labels: list[str]) -> None:
    """Raise LaunchError for ``--devices`` that are not among the ``labels`` of the GPUs here."""
    missing = [one for one in (devices or "").split(",") if one.strip() and one.strip() not in labels]
    if missing:
        there = ", ".join(filter(None, labels))
        none = "Paddle finds none: plsc doctor says why; CPUs take --ranks N"
        found = f"Paddle finds {there} only" if there else none
        raise LaunchError(f"--devices {devices}: there is no GPU {missing[0].strip()} here; {found}")


def _container_status(container: Any) -> str:
    return f"rank {container.rank}: status {container.exit_code}, log {container.errfile}"


def _print_failed_log(container: Any, pod: Any, print_end: Callable[[Any], None]) -> None:
    """In place of Container.tail, which Paddle calls for the first failed rank: prints no line twice.

    The log of rank 0 is printed as it grows, so only its last lines are missing. ``print_end`` prints the end of the
    log of another rank.
    """
    if container is pod.containers[0]:
        container.logs()
    else:
        print_end(container)


def _make_private(log_dir: str) -> None:
    """Make the log directory readable by this user only; an existing directory stays as it is."""
    if log_dir and not os.path.isdir(log_dir):
        os.makedirs(log_dir, mode=0o700, exist_ok=True)


class StopForwarder:
    """Forwards a request to stop from the launcher's ``controller`` to its ranks.

    handled: the signals that request it; the others of _FORWARDED are ignored, here and by the ranks.
    """

    def __init__(self, controller: Any, handled: Iterable[signal.Signals] = tuple(_FORWARDED)):
        self._pod = controller.pod
        self._asked = 0
        self._asked_at = -math.inf
        self._has_told = False
        self._last = signal.SIGTERM
        self._forwarded: dict[int, int] = {}  # process id -> how many signals it got
        self._watch, controller.pod.watch = controller.pod.watch, self.watch
        for number in _FORWARDED:
            signal.signal(number, self._handle_signal if number in handled else signal.SIG_IGN)

    def watch(self, *args, **options) -> Any:
        """Replaces the pod's own watch, which Paddle calls in a loop and which kills all ranks when one has failed.

        Ends the process after a requested stop, when the ranks have ended; also where others asked the ranks to stop.
        """
        found = self._watch(*args, **options)
        self._await_first()
        self._tell_other_machines()
        if self._asked or {EXIT_STOPPED, EXIT_UNVERIFIED} & set(self._codes()):
            self._await_all()
            raise SystemExit(self.status())
        return found

    def status(self) -> int:
        """The status of the first rank with an error, which goes before ranks ended by a signal; else 75 if a rank was
        stopped; else 0."""
        codes = [EXIT_STOPPED if code is None else code for code in self._codes()]
        failed = sorted((code for code in codes if code not in (0, EXIT_STOPPED)), key=lambda code: code < 0)
        if failed:
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        return EXIT_STOPPED if EXIT_STOPPED in codes or (self._asked and not codes) else 0

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number != signal.SIGINT and now - self._asked_at <= REPEATS_SECONDS:
            return  # the same request once more, as for the ranks
        self._asked, self._asked_at = self._asked + 1, now
        self._last = _FORWARDED[signal.Signals(number)]
        self._forward()  # first: there may be no terminal any more
        if self._asked == 1:
            name = signal.Signals(number).name
            write_stderr(f"plsc.launch: {name}: the ranks save and end; a second one ends them at once, unsaved")
        if not self._processes():
            raise SystemExit(EXIT_STOPPED)

    def _forward(self) -> None:
        """Signal each rank as often as this process was signalled, also ranks that started since."""
        for process in self._processes():
            if self._forwarded.get(process.pid, 0) < self._asked and process.returncode is None:
                self._forwarded[process.pid] = self._asked
                process.send_signal(self._last if self._asked < 3 else signal.SIGKILL)

    def _await_first(self) -> None:
        """Where a rank has failed, wait a moment for rank 0 to report why: it receives the reason of the others."""
        deadline = time.monotonic() + _REASON_SECONDS
        while self._failed_before_first() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _failed_before_first(self) -> bool:
        first, *others = self._codes() or [0]
        return first is None and any(others)

    def _tell_other_machines(self) -> None:
        """Where a rank has failed, tell the ranks of other machines, which wait for it if it never reached them; before
        those of this machine are killed, which would be taken for the reason."""
        failed = [one for one in self._pod.containers if _code(one) not in (None, 0, EXIT_STOPPED, EXIT_UNVERIFIED)]
        if not failed or self._has_told:
            return
        self._has_told = True
        for container in failed:
            try:
                env = Environment.from_launch(environ=container.env)
            except PlscError:
                return  # the ranks have said so
            if env.local_world_size == env.world_size or not report_ended(env, _end_of(container)):
                return

    def _await_all(self) -> None:
        while None in self._codes():
            self._pod.logs()
            if self._asked:
                self._forward()
            time.sleep(_POLL_SECONDS)
        while self._pod.logs():
            pass

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes()]

    def _processes(self) -> list[Any]:
        return [process for process in map(_process, self._pod.containers) if process is not None]


def _process(container: Any) -> Any:
    """The subprocess.Popen of a rank; None if it was not started."""
    return None if container._proc is None else container._proc._proc


def _end_of(container: Any) -> str:
    """How a rank has ended, for the others."""
    code = _code(container) or 0
    how = f"by signal {-code}" if code < 0 else f"with status {code}"
    return f"its process has ended {how}, before the others heard of it; see {container.errfile} on {_HOST}"


def _code(container: Any) -> int | None:
    process = _process(container)
    return None if process is None else process.poll()


if __name__ == "__main__":
    main()
