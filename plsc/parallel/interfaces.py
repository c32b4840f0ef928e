"""The network interfaces of this machine, and the one on which Gloo listens and connects."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence

VARIABLE = "GLOO_SOCKET_IFNAME"  # read by Paddle 3, and by plsc.backend.key_server for Paddle 2.6
LOOPBACK = "lo"
_SIOCGIFADDR = 0x8915  # netdevice(7): the IPv4 address of an interface


def interface_addresses() -> dict[str, str]:
    """{name: IPv4 address} of each interface that has one, "lo" included."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # it has none
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def is_loopback(address: str) -> bool:
    """Whether an IPv4 address, or "localhost", means the machine itself."""
    return address == "localhost" or (is_ipv4(address) and ipaddress.IPv4Address(address).is_loopback)


def is_ipv4(text: str) -> bool:
    """Whether the text is an IPv4 address, such as 10.0.0.1."""
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


def interface_of(host: str) -> str | None:
    """The interface that has the address of ``host``; None if no interface has it, or the name is unknown."""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return None
    return next((name for name, own in interface_addresses().items() if own == address), None)


@contextlib.contextmanager
def gloo_on_interface(endpoints: Sequence[str], rank: int) -> Iterator[None]:
    """Within this context Gloo uses the interface of this rank's endpoint: the loopback one if all ranks are there, so
    that no other machine can connect.

    A foreign connection would take the place of a rank and end the run. By default Gloo uses the address of the host
    name, which on Debian is 127.0.1.1. GLOO_SOCKET_IFNAME set by the user takes precedence.
    """
    name = _interface_for(endpoints, rank)
    if os.environ.get(VARIABLE) or name is None:
        yield
        return
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def _interface_for(endpoints: Sequence[str], rank: int) -> str | None:
    hosts = [endpoint.rsplit(":", 1)[0] for endpoint in endpoints]
    if all(map(is_loopback, hosts)):
        return LOOPBACK
    found = interface_of(hosts[rank])
    return None if found == LOOPBACK else found  # no other machine would reach it
