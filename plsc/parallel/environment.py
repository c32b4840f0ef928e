"""The rank, world size and device of this process. The only module that reads the launcher's variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from plsc.errors import LaunchError

LAUNCH_VARIABLES = (
    "PADDLE_TRAINER_ID",
    "PADDLE_TRAINERS_NUM",
    "PADDLE_TRAINER_ENDPOINTS",
    "PADDLE_CURRENT_ENDPOINT",
)
GPU_VARIABLE = "FLAGS_selected_gpus"
PORT_VARIABLE = "PLSC_PORT_RANGE"  # set by --port-range of plsc.launch
_RANGE = re.compile(r"([0-9]{4,5})-([0-9]{4,5})")
_ENDPOINT = re.compile(r"[^\s:,/]+:(\d{1,5})|\[[0-9A-Fa-f:.]+\]:(\d{1,5})", re.ASCII)


@dataclass(frozen=True)
class Environment:
    """The rank of this process and its surroundings.

    ``endpoints``: host:port of all ranks in order (empty with one rank). ``device``: "cpu" or "gpu". ``device_id``: the
    index of its GPU among those visible to this process. ``ports``: those on which this rank may listen, or None for
    any (see plsc.parallel.ports).
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    endpoints: tuple[str, ...] = ()
    device: str = "cpu"
    device_id: int = 0
    ports: range | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device == "gpu"

    @property
    def host(self) -> str:
        """The host of this rank's endpoint, which is its address for the other ranks; "" with one rank."""
        return self.endpoints[self.rank].rsplit(":", 1)[0] if self.endpoints else ""

    @classmethod
    def from_launch(cls, device: str = "cpu", environ: Mapping[str, str] | None = None) -> Environment:
        """Read the variables that ``python -m paddle.distributed.launch`` sets; one rank if there are none.

        Raises LaunchError where some variables are missing, are not numbers or contradict each other.
        """
        environ = os.environ if environ is None else environ
        present = [name for name in LAUNCH_VARIABLES if environ.get(name)]
        if not present:
            return cls(device=device, device_id=_device_id(environ, 0))
        missing = [name for name in LAUNCH_VARIABLES if name not in present]
        world_size = _integer(environ, "PADDLE_TRAINERS_NUM", 0)
        rank = _integer(environ, "PADDLE_TRAINER_ID", 0)
        if world_size == 1 and rank == 0:  # one rank needs no endpoints, and can only be rank 0
            return cls(device=device, device_id=_device_id(environ, 0))
        if missing:
            raise LaunchError(
                f"the launch environment is incomplete: {', '.join(missing)} missing; start with "
                "`python -m paddle.distributed.launch`, or unset " + ", ".join(present)
            )
        endpoints = tuple(environ["PADDLE_TRAINER_ENDPOINTS"].split(","))
        if not 0 <= rank < world_size or len(endpoints) != world_size:
            raise LaunchError(
                f"PADDLE_TRAINER_ID={str(rank)[:20]}, PADDLE_TRAINERS_NUM={str(world_size)[:20]} and {len(endpoints)} "
                "PADDLE_TRAINER_ENDPOINTS contradict each other: each rank in [0, world size) needs one endpoint"
            )
        for endpoint in endpoints:
            _check_endpoint(endpoint)
        if environ["PADDLE_CURRENT_ENDPOINT"] != endpoints[rank] or len(set(endpoints)) < world_size:
            raise LaunchError(
                f"PADDLE_CURRENT_ENDPOINT={environ['PADDLE_CURRENT_ENDPOINT']!r} and PADDLE_TRAINER_ENDPOINTS="
                f"{','.join(endpoints)!r} contradict each other: rank {rank} must have entry {rank}, and all entries "
                "must differ"
            )
        host = endpoints[rank].rsplit(":", 1)[0]
        same_host = [r for r, endpoint in enumerate(endpoints) if endpoint.rsplit(":", 1)[0] == host]
        local_rank = same_host.index(rank)
        device_id, ports = _device_id(environ, local_rank), read_port_range(environ)
        return cls(rank, world_size, local_rank, len(same_host), endpoints, device, device_id, ports)


def parse_port_range(text: str, name: str) -> range:
    """The ports from A to B of "A-B". Raises LaunchError, which calls the text ``name``, for anything else."""
    match = _RANGE.fullmatch(text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise LaunchError(
            f"{name}{text[:40]!r}: must be FIRST-LAST, two ports from 1024 to 65535 in order, as in 20000-20099"
        )
    return range(first, last + 1)


def read_port_range(environ: Mapping[str, str]) -> range | None:
    """The ports of PLSC_PORT_RANGE, or None where it is not set. Raises LaunchError if it is invalid."""
    text = environ.get(PORT_VARIABLE)
    return parse_port_range(text, f"{PORT_VARIABLE}=") if text else None


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device_id(environ: Mapping[str, str], default: int) -> int:
    """The GPU that the launcher assigned to this rank. With one rank it may list several; the first is used."""
    text = environ.get(GPU_VARIABLE) or str(default)
    first = text.split(",")[0].strip()
    if not first.isdecimal() or len(first) > 4:
        raise LaunchError(
            f"{GPU_VARIABLE}={text[:40]!r}: must be the index of a GPU; "
            "`python -m paddle.distributed.launch` sets it"
        )
    return int(first)


def _check_endpoint(endpoint: str) -> None:
    """Raise LaunchError for an invalid host:port, for which Paddle would end the process or hang."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 1 <= int(match.group(1) or match.group(2)) <= 65535:
        raise LaunchError(
            f"PADDLE_TRAINER_ENDPOINTS: {endpoint[:80]!r} is not host:port with a port from 1 to 65535; "
            "`python -m paddle.distributed.launch` sets it (--master, --ips, --start_port)"
        )


def quiet_paddle_logs() -> None:
    """Show only errors of Paddle's C++ code on the terminal. GLOG_minloglevel=0 in the environment shows all."""
    os.environ.setdefault("GLOG_minloglevel", "2")


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise LaunchError(
            f"{name}={text[:40]!r}: must be a whole number; it is set by `python -m paddle.distributed.launch`"
        ) from None
