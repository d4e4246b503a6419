"""Datagrams, sent to this machine or to a multicast group."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass

from ...pipeline.clock import RealClock
from ...pipeline.context import Context
from ._addresses import address_of, at, is_group, join
from ._losses import MISSED
from ._numbers import AGAIN, GAP, LATE, RESTART, Numbers
from .arrival import Arrival
from .inlet import Inlet
from .stamp import MOST_NUMBER, number_of, unpack

__all__ = ["UdpLine"]

#: Receive buffer asked for; the kernel gives up to ``net.core.rmem_max``, or all of it to a process with CAP_NET_ADMIN.
_BUFFER = 8 << 20
_LARGEST = 65_535
#: Linux' SO_TIMESTAMPNS, SO_RXQ_OVFL and SO_RCVBUFFORCE, which the `socket` module does not name.
_STAMP, _DROPS, _FORCED_BUFFER = 35, 40, 33


@dataclass(frozen=True)
class UdpLine:
    """Datagrams to `host`:`port` (IPv4 or IPv6); a multicast `host` is joined on `interface` (see `_addresses`).

    Each datagram is one message, stamped with the time at which the kernel took it in. What the kernel dropped because
    nobody read in time is counted with what did not fit the queue. Datagrams that a replay has numbered are watched: lost
    ones are told to the session at the next one, one that comes twice is taken once and counted, a late one noted.
    """

    host: str
    port: int
    line: int = 0
    interface: str = ""

    def run(self, inlet: Inlet, context: Context) -> None:
        """See `Line.run`. Raises OSError where the address cannot be had."""
        with self._open() as sock:
            kernel_time = isinstance(context.clock, RealClock) and sys.platform == "linux"
            dropped = 0
            numbers = Numbers(lowest=1, highest=MOST_NUMBER)
            inlet.put(Arrival(context.clock.now_ns(), b"", self.line, 0, "connected"))
            while not inlet.done:
                try:
                    data, extras, _, _ = sock.recvmsg(_LARGEST, 256)
                except TimeoutError:
                    continue
                recv_ns = 0
                for level, kind, value in extras:
                    if level == socket.SOL_SOCKET and kind == _STAMP and len(value) >= 16 and kernel_time:
                        seconds, ns = struct.unpack_from("@qq", value)
                        recv_ns = seconds * 10**9 + ns
                    elif level == socket.SOL_SOCKET and kind == _DROPS:
                        total = int(struct.unpack_from("@I", value)[0])
                        inlet.overflowed += (total - dropped) % (1 << 32)
                        dropped = total
                stamped = unpack(data)
                if stamped is None:
                    inlet.offer(Arrival(recv_ns or context.clock.now_ns(), data, self.line))
                elif not number_of(data) or self._is_new(data, stamped[0], numbers, inlet, context):
                    inlet.offer(Arrival(stamped[0], stamped[2], self.line, stamped[1]))

    def _is_new(self, data: bytes, ts_ns: int, numbers: Numbers, inlet: Inlet, context: Context) -> bool:
        """Tell what the number of a datagram says of those before it; False if it came before."""
        verdict = numbers.take(number_of(data), data)
        if verdict.kind == AGAIN:
            context.drop("datagrams that came twice")
            return False
        if verdict.kind == LATE:
            context.note("datagrams that came behind later ones")
        elif verdict.kind in (GAP, RESTART):
            which = f"{verdict.first} to {verdict.last} of the sender never came"
            if verdict.kind == RESTART:
                which = f"of the sender are numbered anew from {verdict.last} on, where {verdict.first} was due"
            inlet.offer(Arrival(ts_ns, b"", self.line, 0, MISSED + which))
            inlet.offer(Arrival(ts_ns, b"", self.line, 0, "connected"))
        return True

    def _open(self) -> socket.socket:
        try:
            family, address = address_of(self.host, self.port)
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise self._refused(error) from None
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            if sys.platform == "linux":
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, _FORCED_BUFFER, _BUFFER)
                sock.setsockopt(socket.SOL_SOCKET, _STAMP, 1)
                sock.setsockopt(socket.SOL_SOCKET, _DROPS, 1)
            if is_group(address):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            join(sock, address, self.interface)
            sock.settimeout(0.1)
        except OSError as error:
            sock.close()
            raise self._refused(error) from None
        return sock

    def _refused(self, error: OSError) -> OSError:
        why = error.strerror or error
        return OSError(error.errno, f"cannot receive on udp://{at(self.host, self.port)}: {why}")
