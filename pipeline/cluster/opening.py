"""In which order the processes of an attempt take up their roles and begin."""

from __future__ import annotations

from collections.abc import Iterable

from .layout import DRIVER, Layout, edges
from .staffing import Seat

__all__ = ["Opening"]


class Opening:
    """Who can go on, given `briefed`: those who have taken up their roles."""

    def __init__(self, layout: Layout, seats: Iterable[Seat]) -> None:
        self.briefed: set[Seat] = set()
        self._unbriefed, self._idle = dict.fromkeys(seats), [seat for seat in seats if seat.kind == "host"]
        servants: dict[int, set[Seat]] = {host.index: set() for host in layout.hosts}
        for seat in self._unbriefed:
            if seat.kind != "host":
                servants[layout.host_served_by(seat.kind, seat.serves).index].add(seat)
        hosts = {int(seat.serves): seat for seat in self._idle}
        self._servants = {seat: servants[index] for index, seat in hosts.items()}
        self._above: dict[Seat, set[Seat]] = {seat: {seat} for seat in self._idle}
        for producer, consumer, _ in edges(layout):
            below = layout.host_of(consumer).index
            if below != DRIVER:
                self._above[hosts[below]].add(hosts[layout.host_of(producer).index])

    def to_brief(self) -> list[Seat]:
        """Who can take up a role now, each once."""
        found = [seat for seat in self._unbriefed if self._servants.get(seat, set()) <= self.briefed]
        for seat in found:
            del self._unbriefed[seat]
        return found

    def to_start(self) -> list[Seat]:
        """Which hosts can begin now, each once."""
        found = [seat for seat in self._idle if self._above[seat] <= self.briefed]
        self._idle = [seat for seat in self._idle if seat not in found]
        return found
