"""Sockets of ZeroMQ: messages taken apart, connections watched.

Left to itself ZeroMQ connects again in silence, and messages of the old and the new connection come in one queue. Here each
connection has a socket of its own, so that a loss is told exactly where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from ...pipeline.context import Context
from ..live._numbers import AGAIN, GAP, LATE, RESTART, Numbers
from ..live._retry import Retry
from ..live.arrival import Arrival
from ..live.inlet import Inlet
from ._gaps import bad_arrivals, gap_arrivals
from ._stamps import number_of

if TYPE_CHECKING:
    from .zeromq import Zmq

__all__ = ["ZmqLine"]

_LOOK_MS = 100
_BATCH = 256
#: Longer than it takes to read what is left and close the socket. Without any interval ZeroMQ would throw away what is left.
_NEVER_MS = 60_000
_SETTLE_MS = 10
_HANDSHAKE_NS = 5 * 10**9
#: The longest frame; a sender of a longer one is cut off.
_LONGEST = 64 << 20
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)
_BY_COUNT = {1: ("payload",), 2: ("topic", "payload"), 3: ("topic", "ts", "payload")}


class ZmqLine:
    """See `Line`. Connects again after a loss; the feed ends when nobody was there for `patience_ns`."""

    def __init__(self, spec: Zmq, *, patience_ns: int) -> None:
        self._spec, self._patience = spec, patience_ns
        self._channel: int = getattr(spec.codec, "channel", 0)
        self._numbers: dict[bytes, Numbers] = {}

    def run(self, inlet: Inlet, context: Context) -> None:
        """See `Line.run`. Raises ConnectionError if there never was a connection, or the address cannot be used."""
        with zmq.Context() as owner:
            try:
                if self._spec.bind:
                    self._take_from_all(owner, inlet, context)
                else:
                    self._take_from_one(owner, inlet, context)
            except zmq.ZMQError as error:
                raise ConnectionError(f"{self._spec.name}: {error}") from None

    def _socket(self, owner: Any) -> Any:
        sock = owner.socket(zmq.SUB if self._spec.kind == "sub" else zmq.PULL)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RCVHWM, self._spec.queue)
        sock.setsockopt(zmq.MAXMSGSIZE, _LONGEST)
        sock.setsockopt(zmq.RECONNECT_IVL, _NEVER_MS)
        if self._spec.kind == "sub":
            sock.setsockopt(zmq.SUBSCRIBE, self._spec.topic)
        return sock

    def _take_from_all(self, owner: Any, inlet: Inlet, context: Context) -> None:
        with self._socket(owner) as sock:
            sock.bind(self._spec.url)
            while not inlet.done:
                if sock.poll(_LOOK_MS):
                    self._drain(sock, inlet, context, _BATCH)

    def _take_from_one(self, owner: Any, inlet: Inlet, context: Context) -> None:
        retry, connected = Retry(context, self._patience, self._spec.name), False
        while not inlet.done:
            with self._socket(owner) as sock:
                monitor = sock.get_monitor_socket(_EVENTS)
                try:
                    sock.connect(self._spec.url)
                    met = self._follow(sock, monitor, inlet, context, retry)
                    connected |= met
                finally:
                    sock.disable_monitor()
                    monitor.close(0)
            if inlet.done or retry.wait(inlet, "lost: closed by the sender" if met else "nobody answers there"):
                continue
            if connected or inlet.done:
                return
            raise ConnectionError(f"{self._spec.name}: nobody answers there")

    def _follow(self, sock: Any, monitor: Any, inlet: Inlet, context: Context, retry: Retry) -> bool:
        """Read one connection to its end; False if there was none."""
        began, met = context.clock.monotonic_ns(), False
        poller = zmq.Poller()
        poller.register(sock, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        while not inlet.done:
            ready = dict(poller.poll(_LOOK_MS))
            if monitor in ready:
                event = recv_monitor_message(monitor)["event"]
                if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    while met and sock.poll(_SETTLE_MS) and not inlet.done:  # what came before it was lost
                        self._drain(sock, inlet, context, _BATCH)
                    break
                met = True
                retry.succeeded()
                inlet.put(Arrival(context.clock.now_ns(), b"", 0, 0, "connected"))
            elif sock in ready and not met and monitor.poll(_LOOK_MS):
                continue  # that there is a connection is told before what comes over it
            elif sock in ready:
                self._drain(sock, inlet, context, _BATCH)
            elif not met and context.clock.monotonic_ns() - began > _HANDSHAKE_NS:
                break
        if met:
            inlet.put(Arrival(context.clock.now_ns(), b"", 0, 0, "lost: closed by the sender"))
        return met

    def _drain(self, sock: Any, inlet: Inlet, context: Context, most: int) -> None:
        for _ in range(most):
            try:
                parts = sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if not all(inlet.put(arrival) for arrival in self._arrivals(parts, context)):
                return

    def _arrivals(self, parts: Sequence[bytes], context: Context) -> list[Arrival]:
        now_ns = context.clock.now_ns()
        names = self._spec.frames if self._spec.frames is not None else _BY_COUNT.get(len(parts), ())
        named = dict(zip(names, parts, strict=False))
        stamp = number_of(named["ts"]) if "ts" in named else now_ns
        number = number_of(named["sequence"]) if "sequence" in named else 0
        if len(names) != len(parts) or stamp is None or number is None:
            sizes = ", ".join(str(len(part)) for part in parts[:16])
            wanted = ", ".join(names) or "topic, ts, payload"
            return bad_arrivals(now_ns, f"a message of {len(parts)} frames ({sizes} bytes), not {wanted}", parts)
        found = [Arrival(stamp, named["payload"], 0, self._channel)]
        if "sequence" in named:
            topic = named.get("topic", b"")
            verdict = self._numbers.setdefault(topic, Numbers(before=0)).take(number, b"\0".join(parts))
            of = f" of topic {topic.decode('utf-8', 'replace')!r}" if topic else ""
            if verdict.kind == AGAIN:
                context.drop("messages that came twice")
                return []
            if verdict.kind == LATE:
                context.note("messages that came after they were told missing")
            elif verdict.kind == GAP:
                found = [*gap_arrivals(stamp, f"messages {verdict.first} to {verdict.last}{of} never came"), *found]
            elif verdict.kind == RESTART:
                began = f"numbers{of} began again at {number} after {verdict.first - 1}"
                found = [*gap_arrivals(stamp, began), *found]
        return found
