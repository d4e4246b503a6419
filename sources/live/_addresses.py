"""Hosts, options and interfaces in the addresses of feeds and replays, for IPv4 and IPv6.

An interface is a name (``eth0``), a number, or an address that it has (IPv4). A multicast group is joined on the one that is
named, else on that of the route to the group and on this machine's own. Replays send on one of both unless they are told
otherwise: over IPv4 on this machine's own, over IPv6, which seldom has a route there, on that of the route.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...pipeline.errors import GraphError

__all__ = ["OPTIONS", "address_of", "at", "family_of", "is_group", "join", "options_of", "send_from"]

#: What may stand behind the ``?`` of an address, by scheme. Of others everything behind it is the server's. A receiver does
#: not use `ttl`, so that one address serves both ends.
OPTIONS: dict[str, Sequence[str]] = {"udp": ("interface", "ttl"), "tcp": ("framing",)}
_ANY = ("", "0.0.0.0", "::")
_HERE = ("lo", "lo0")


def at(host: str, port: int) -> str:
    """``HOST:PORT``; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def options_of(url: str, known: Sequence[str] | None = None) -> dict[str, str]:
    """The options in `url`. Raises GraphError for one that its scheme does not have (`known`: what it has)."""
    parts = urlsplit(url)
    known = OPTIONS.get(parts.scheme) if known is None else known
    asked = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    for key in asked if known is not None else ():
        if known is not None and key not in known:
            expected = " | ".join(f"?{name}=" for name in known) or "none"
            raise GraphError(f"no option {key!r} of {parts.scheme}:// here", expected=expected, got=url)
    return asked


def family_of(host: str) -> socket.AddressFamily:
    """The family in which a server listens on `host`."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def address_of(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Family and socket address of datagrams to `host`; IPv4 where a name has both. Raises OSError for an unknown name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address


def is_group(address: Any) -> bool:
    """Whether a socket address is that of a multicast group."""
    return ipaddress.ip_address(address[0].partition("%")[0]).is_multicast


def join(sock: socket.socket, address: Any, interface: str) -> None:
    """Bind `sock` to `address`, and join it if it is a group. Raises OSError where there is no such interface."""
    named = interface not in _ANY
    if len(address) == 4:
        number = _numbered(interface) if named else address[3]
        sock.bind((*address[:3], number))
        group = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
        wanted = [group + struct.pack("@I", each) for each in ([number] if number else [0, _here()])]
        level, option = socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP
    else:
        places = [_place(interface)] if named else [_place("0.0.0.0"), _place("127.0.0.1")]
        sock.bind(address)
        wanted = [socket.inet_aton(address[0]) + place for place in places]
        level, option = socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP
    if not is_group(address):
        return
    failure, joined = None, False
    for member in wanted:
        try:
            sock.setsockopt(level, option, member)
            joined = True
        except OSError as error:
            failure = failure or error
    if not joined and failure is not None:
        raise _explained(failure, interface)


def send_from(sock: socket.socket, address: Any, interface: str, hops: int) -> None:
    """Let multicast go `hops` far (0: to this machine) from an interface. Raises OSError where there is no such one."""
    named = interface not in _ANY
    try:
        if len(address) == 4:
            number = _numbered(interface) if named else address[3]
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
        else:
            place = _place(interface if named else "127.0.0.1")
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(4) + place)
    except OSError as error:
        raise _explained(error, interface) from None


def _place(interface: str) -> bytes:
    """Address and number of an interface, as IPv4 takes them behind a group (``struct ip_mreqn``)."""
    try:
        return ipaddress.IPv4Address(interface).packed + struct.pack("@i", 0)
    except ValueError:
        return bytes(4) + struct.pack("@i", _numbered(interface))


def _numbered(interface: str) -> int:
    known = socket.if_nameindex()
    for number, name in known:
        if interface in (name, str(number)):
            return number
    names = ", ".join(name for _, name in known)
    raise OSError(errno.ENODEV, f"no interface {interface!r}; this machine has {names}")


def _here() -> int:
    """The number of this machine's own interface."""
    return next((number for number, name in socket.if_nameindex() if name in _HERE), 0)


def _explained(error: OSError, interface: str) -> OSError:
    if interface not in _ANY and error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL) and "interface" not in str(error):
        return OSError(error.errno, f"no interface has the address {interface}")
    return error
