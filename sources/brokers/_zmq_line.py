"""One socket of ZeroMQ: messages taken apart, connections watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from ...pipeline.context import Context
from ..live.arrival import Arrival
from ..live.inlet import Inlet
from ._gaps import bad_arrivals, gap_arrivals
from ._stamps import number_of

if TYPE_CHECKING:
    from .zeromq import Zmq

__all__ = ["ZmqLine"]

_LOOK_MS = 100
_BATCH = 256
#: The longest frame; a sender of a longer one is cut off.
_LONGEST = 64 << 20
_BY_COUNT = {1: ("payload",), 2: ("topic", "payload"), 3: ("topic", "ts", "payload")}


class ZmqLine:
    """See `Line`. Connects again by itself; the feed ends when nobody was there for `patience_ns`."""

    def __init__(self, spec: Zmq, *, patience_ns: int) -> None:
        self._spec, self._patience = spec, patience_ns
        self._channel: int = getattr(spec.codec, "channel", 0)
        self._next: dict[bytes, int] = {}

    def run(self, inlet: Inlet, context: Context) -> None:
        """See `Line.run`. Raises ConnectionError if there never was a connection, or the address cannot be used."""
        with zmq.Context() as owner, owner.socket(zmq.SUB if self._spec.kind == "sub" else zmq.PULL) as sock:
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RCVHWM, self._spec.queue)
            sock.setsockopt(zmq.MAXMSGSIZE, _LONGEST)
            if self._spec.kind == "sub":
                sock.setsockopt(zmq.SUBSCRIBE, self._spec.topic)
            monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            try:
                (sock.bind if self._spec.bind else sock.connect)(self._spec.url)
                self._follow(sock, monitor, inlet, context)
            except zmq.ZMQError as error:
                raise ConnectionError(f"{self._spec.name}: {error}") from None
            finally:
                sock.disable_monitor()
                monitor.close(0)

    def _follow(self, sock: Any, monitor: Any, inlet: Inlet, context: Context) -> None:
        clock = context.clock
        away: int | None = clock.monotonic_ns()
        ever = False
        poller = zmq.Poller()
        poller.register(sock, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        while not inlet.done:
            ready = dict(poller.poll(_LOOK_MS))
            if monitor in ready:
                event = recv_monitor_message(monitor)["event"]
                self._drain(sock, inlet, context, self._spec.queue)  # what came before the connection was lost
                if event == zmq.EVENT_DISCONNECTED:
                    away = clock.monotonic_ns() if away is None else away
                else:
                    away, ever = None, True
                if not self._spec.bind:
                    what = "lost: closed by the sender" if event == zmq.EVENT_DISCONNECTED else "connected"
                    inlet.put(Arrival(clock.now_ns(), b"", 0, 0, what))
            elif sock in ready:
                self._drain(sock, inlet, context, _BATCH)
            elif away is not None and not self._spec.bind and clock.monotonic_ns() - away >= self._patience:
                if ever:
                    return
                raise ConnectionError(f"{self._spec.name}: nobody answers there")

    def _drain(self, sock: Any, inlet: Inlet, context: Context, most: int) -> None:
        for _ in range(most):
            try:
                parts = sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if not all(inlet.put(arrival) for arrival in self._arrivals(parts, context.clock.now_ns())):
                return

    def _arrivals(self, parts: Sequence[bytes], now_ns: int) -> list[Arrival]:
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
            found = [*self._missing(named.get("topic", b""), number, stamp), *found]
        return found

    def _missing(self, topic: bytes, number: int, stamp: int) -> list[Arrival]:
        expected = self._next.get(topic, number)
        self._next[topic] = number + 1
        if number == expected:
            return []
        of = f" of topic {topic.decode('utf-8', 'replace')!r}" if topic else ""
        if number < expected:
            return gap_arrivals(stamp, f"numbers{of} began again at {number} after {expected - 1}")
        return gap_arrivals(stamp, f"messages {expected} to {number - 1}{of} never came")
