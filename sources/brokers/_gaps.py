"""Messages that a broker no longer has, or lost: told once, and to the codec, whose books must begin again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...pipeline.context import BadRecord
from ...pipeline.source import Decoded
from ..live.arrival import Arrival
from ..live.session import Framed, Session

__all__ = ["GapSession", "bad_arrivals", "gap_arrivals"]

_GAP = "lost: gap: "
_BAD = "bad: "
_SHOWN = 1 << 16


def gap_arrivals(recv_ns: int, what: str) -> list[Arrival]:
    """Stand where messages are missing; `what` says which. A recording keeps them as a loss of the connection."""
    return [Arrival(recv_ns, b"", 0, 0, _GAP + what), Arrival(recv_ns, b"", 0, 0, "connected")]


def bad_arrivals(recv_ns: int, error: str, parts: Sequence[bytes]) -> list[Arrival]:
    """Stand for a message that is not of the form that was agreed on."""
    return [Arrival(recv_ns, b"\n".join(parts)[:_SHOWN], 0, 0, _BAD + error)]


class GapSession(Session):
    """`inner`, with gaps told as ``broker.gap`` instead of as connections that were lost."""

    def __init__(self, inner: Session, place: str) -> None:
        self._inner, self._place = inner, place

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Whether the feed says that it is over."""
        return self._inner.ended

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        missed = [arrival.event.removeprefix(_GAP) for arrival in arrivals if arrival.event.startswith(_GAP)]
        bad = [arrival for arrival in arrivals if arrival.event.startswith(_BAD)]
        framed = self._inner.take([a for a in arrivals if not a.event.startswith(_BAD)] if bad else arrivals, first_seq)
        if not missed and not bad and not framed.noticed:
            return framed
        told = [BadRecord(self._place, "broker.gap", what, b"") for what in missed]
        told += [BadRecord(self._place, "broker.frames", a.event.removeprefix(_BAD), a.data) for a in bad]
        others = [record for record in framed.noticed if record.operation != "live.gap" or "gap: " not in record.error]
        return Framed(framed.payload, framed.records, framed.nbytes, [*told, *others], framed.dropped, framed.requests)

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        return self._inner.decode(payload, first_seq)

    def idle(self, quiet_ns: int, first_seq: int) -> Framed | None:
        return self._inner.idle(quiet_ns, first_seq)

    def finish(self, first_seq: int) -> Framed | None:
        return self._inner.finish(first_seq)

    def position(self) -> Mapping[str, Any]:
        return self._inner.position()
