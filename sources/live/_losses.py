"""Lost connections, told once: where they were made again, and at the end where one broke off."""

from __future__ import annotations

from ...pipeline.context import BadRecord
from .arrival import Arrival

__all__ = ["MISSED", "Losses", "ended_well"]

#: How the event begins that says which numbered datagrams did not come.
MISSED = "lost: datagrams "
_LOST = "lost: "
#: How the reasons begin of a sender that ended its connection as it should.
_CLEAN = ("closed by the sender", "received 1000", "received 1001")


def ended_well(event: str) -> bool:
    """Whether the event of a lost connection says that its sender ended it as it should."""
    return event.removeprefix(_LOST).startswith(_CLEAN)


class Losses:
    """What happened to the lines of a feed."""

    def __init__(self) -> None:
        self._lost: dict[int, str] = {}

    @property
    def any(self) -> bool:
        """Whether a connection is lost now."""
        return bool(self._lost)

    def heard(self, arrival: Arrival, place: str) -> list[BadRecord]:
        """What to tell of an event: nothing but when a lost connection is there again."""
        if arrival.event.startswith(_LOST):
            self._lost[arrival.line] = arrival.event.removeprefix(_LOST)
            return []
        reason = self._lost.pop(arrival.line, "")
        if not reason:
            return []
        if reason.startswith(MISSED.removeprefix(_LOST)):
            return [BadRecord(place, "live.gap", reason, b"")]
        error = f"the connection was lost ({reason}) and made again: what was sent in between is missing"
        return [BadRecord(place, "live.gap", error, b"")]

    def ended(self, place: str) -> list[BadRecord]:
        """What to tell at the end of the feed: connections that were not ended by their sender, and not made again."""
        broken = [reason for reason in self._lost.values() if not ended_well(reason)]
        self._lost.clear()
        return [
            BadRecord(place, "live.gap", f"the connection was lost ({reason}) and not made again", b"")
            for reason in broken
        ]
