"""The addresses by which launchers on several machines find each other, before Paddle's launcher sees them.

Paddle's own takes what the name of the machine resolves to, which on Debian is 127.0.1.1, and waits for ever for a
rendezvous that is given by name.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from plsc.errors import LaunchError
from plsc.parallel.interfaces import LOOPBACK, interface_addresses, is_ipv4, is_loopback
from plsc.terminal import print_stderr

NAME_SECONDS = 60
_ELSEWHERE = "192.0.2.1"  # RFC 5737: an address that no machine has; packets to it take the default route


@dataclass(frozen=True)
class Rendezvous:
    """Where the launchers meet. ``host``, ``port``: of the server, on one of the machines; ``own``: the address of this
    machine for the others. All addresses are IPv4."""

    host: str
    port: int
    own: str

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"


def find_rendezvous(
    master: str, interface: str | None = None, own: str | None = None, patience: float = NAME_SECONDS
) -> Rendezvous:
    """The rendezvous of ``--master HOST:PORT`` as this machine sees it.

    ``interface``: the network interface to use. ``own``: this machine's address, where the user has said it. Without
    either it is the address from which packets to the rendezvous are sent. ``patience``: for how many seconds a name
    may be unknown, as that of a machine that is still to start. Raises LaunchError where there is none.
    """
    name, port = split_endpoint(master)
    host = resolve(name, f"--master {master}", patience)
    if interface is not None:
        own = address_of(interface)
    elif own is not None:
        own = resolve(own, f"--host {own}")
    if own is not None and is_loopback(own) and not is_loopback(host):
        raise LaunchError(
            f"this machine's address is given as {own}, at which no other machine reaches it: leave out --host and "
            "POD_IP, or give the address in the network of --master"
        )
    here = host in interface_addresses().values() or is_loopback(host)
    if is_loopback(host) and not is_ipv4(name) and name != "localhost":  # Debian's 127.0.1.1 for its own name
        host = own = own or _only_address(master, host)
    elif own is None:
        own = host if here else _address_towards(host, master)
    elif here and host != own:
        raise LaunchError(
            f"--master {master} is an address of this machine, {host}, but not the one to use, {own}"
            f"{f' of {interface}' if interface else ''}: give --master {own}:{port} on every machine"
        )
    return Rendezvous(host, port, own)


def split_endpoint(master: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. Raises LaunchError for anything else, IPv6 included."""
    host, _, port = master.rpartition(":")
    if ":" in host:
        raise LaunchError(
            f"--master {master}: Paddle's launcher knows IPv4 only; give an IPv4 address of that machine, or its name"
        )
    if not host or not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
        raise LaunchError(f"--master {master[:80]}: must be HOST:PORT with a port from 1 to 65535, as in 10.0.0.1:6170")
    return host, int(port)


def resolve(name: str, what: str, patience: float = 0.0) -> str:
    """The IPv4 address of a name. Raises LaunchError, which begins with ``what``, if it has none after ``patience``
    seconds."""
    deadline, said = time.monotonic() + patience, False
    while True:
        try:
            found = socket.getaddrinfo(name, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
            break
        except OSError as error:
            reason = f"{what}: this machine does not know {name!r} ({error.strerror})"
        if time.monotonic() >= deadline:
            raise LaunchError(f"{reason}; give its address, or add it to /etc/hosts")
        if not said:
            print_stderr(f"plsc.launch: {reason}; trying again for {patience:g} s")
        said = True
        time.sleep(1.0)
    addresses = [str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET]
    if not addresses:
        raise LaunchError(
            f"{what}: {name} has IPv6 addresses only ({found[0][4][0]}), and Paddle's launcher knows IPv4 only: "
            "give an IPv4 address"
        )
    return addresses[0]


def address_of(interface: str) -> str:
    """The IPv4 address of an interface of this machine. Raises LaunchError if it has none."""
    found = interface_addresses()
    if interface not in found:
        there = ", ".join(f"{name} ({address})" for name, address in found.items() if name != LOOPBACK) or "none"
        raise LaunchError(
            f"--interface {interface}: this machine has no such interface with an IPv4 address; there are: {there}"
        )
    return found[interface]


def find_own_address(addresses: Sequence[str]) -> str:
    """That of ``--ips`` which this machine has. Raises LaunchError if it has none of several: Paddle's launcher would
    take every such machine for the first one."""
    mine = [one for one in addresses if one in interface_addresses().values() or is_loopback(one)]
    if not mine and len(addresses) > 1:
        raise LaunchError(f"--ips {','.join(addresses)}: this machine has none of these addresses; give IPv4 addresses")
    return (mine or list(addresses))[0]


def _only_address(master: str, loopback: str) -> str:
    """This machine's address where the master's name means this machine, but is a loopback address."""
    found = {name: address for name, address in interface_addresses().items() if name != LOOPBACK}
    if len(found) == 1:
        return next(iter(found.values()))
    try:
        return _address_towards(_ELSEWHERE, master)
    except LaunchError:
        there = ", ".join(f"{name} ({address})" for name, address in found.items()) or "there is none"
        raise LaunchError(
            f"--master {master} is {loopback} on this machine, at which no other machine reaches it: name the "
            f"interface of its network by --interface: {there}"
        ) from None


def _address_towards(host: str, master: str) -> str:
    """The address from which packets to ``host`` are sent; none is sent here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return probe.getsockname()[0]
        except OSError as error:
            raise LaunchError(
                f"--master {master}: this machine has no route to {host} ({error.strerror}); check its network"
            ) from None
