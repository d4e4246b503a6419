"""Following the packets of a radar: counters, what came twice, and lists put together from frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded
from ..driving import _ars548_format as ars548
from ..driving import _srr520_format as srr520
from ..driving._radar_packets import Packet, Record
from ..driving._radar_reader import OneRecord, RadarReader, Rows
from ..driving.ars548 import _Packets
from ..driving.srr520 import _Frames
from ._losses import Losses
from ._numbers import AGAIN, GAP, LATE, RESTART, Numbers
from .arrival import Arrival
from .session import Framed, Session

if TYPE_CHECKING:
    from .radar_packets import RadarPackets

__all__ = ["Ars548Session", "Srr520Session"]

#: Where the end-to-end protection has its counter, behind the headers of 16 bytes, a CRC of 8 and a length of 4.
_COUNTER = slice(28, 32)
_TWICE = "packets that came twice"
_MOST_CYCLE = 1000
#: Complete lists that wait for an older one at most.
_MOST_WAITING = 4


class _RadarSession(Session):
    """What both have: lost connections, and rows by the reader of recordings."""

    def __init__(self, codec: RadarPackets, context: Context, source: str) -> None:
        self._codec, self._context, self._source = codec, context, source
        self._schema = codec.schema(source)
        self._losses = Losses()
        self._noticed: list[BadRecord] = []
        self._dropped: dict[str, int] = {}

    def _heard(self, arrival: Arrival) -> None:
        self._noticed += self._losses.heard(arrival, self._source)

    def _gap(self, error: str) -> None:
        self._noticed.append(BadRecord(self._source, "live.gap", error, b""))

    def _drop(self, reason: str) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def _framed(self, record: Record, table: Any, records: int, nbytes: int) -> Framed:
        noticed, self._noticed = self._noticed, []
        dropped, self._dropped = self._dropped, {}
        return Framed((record, table), records, nbytes, noticed, dropped)

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        record, table = payload
        reader = RadarReader(OneRecord(record), table, self._schema, record.first)
        return reader.decode(Block(0, record.first, record.count, 0, {}, [record]))

    def _record(self, first: int, packets: list[Packet]) -> Record:
        place = f"{self._source}, packets from {first}"
        return Record(first, packets, 0, self._codec.frame_id, self._codec.topic, place, 0)


class Ars548Session(_RadarSession):
    """A message is a packet."""

    def __init__(self, codec: RadarPackets, context: Context, source: str) -> None:
        super().__init__(codec, context, source)
        self._table = _Packets(codec.table, codec.clock)
        self._numbers: dict[str, Numbers] = {}
        self._latest: dict[str, tuple[bytes, int]] = {}

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        packets: list[Packet] = []
        for arrival in arrivals:
            if arrival.event:
                self._heard(arrival)
            elif self._is_new(arrival.data):
                packets.append(Packet(arrival.data, arrival.recv_ns))
        size = sum(len(packet.data) for packet in packets)
        return self._framed(self._record(first_seq, packets), self._table, len(packets), size)

    def finish(self, first_seq: int) -> Framed | None:
        self._noticed += self._losses.ended(self._source)
        return self._framed(self._record(first_seq, []), self._table, 0, 0) if self._noticed else None

    def _is_new(self, data: bytes) -> bool:
        kind = ars548.kind_of(data)
        if kind is None or (kind in ars548.KINDS and ars548.packet_error(data, kind)):
            return True
        before, latest = self._latest.get(kind, (b"", 0))
        if data == before:
            self._drop(_TWICE)
            return False
        if kind not in ("detections", "objects"):
            return True
        counter = int.from_bytes(data[_COUNTER], "big")
        time, _ = ars548.sensor_time(data, kind)
        self._latest[kind] = (data, max(latest, time))
        if counter or kind in self._numbers:
            verdict = self._numbers.setdefault(kind, Numbers(highest=(1 << 32) - 1)).take(counter, data)
            if verdict.kind == GAP:
                self._gap(f"{verdict.missing('packet')} of {kind} never came: their counter jumped")
            elif verdict.kind == RESTART:
                self._gap(f"the counter of {kind} began again at {counter} where {verdict.first} was due")
            elif verdict.kind == LATE:
                self._context.note("packets that came after they were told missing")
            elif verdict.kind == AGAIN:
                self._drop(_TWICE)
                return False
        else:
            self._context.note("packets without a counter: a lost one cannot be seen")
            if time < latest:
                self._context.note("packets that came behind later ones")
        return True


class _Ready:
    """Rows that are there already."""

    operation = "srr520.decode"

    def __init__(self, rows: Rows, frames: _Frames) -> None:
        self._rows, self.columns = rows, frames.columns

    def rows(self, record: Record) -> Rows:
        return self._rows


class Srr520Session(_RadarSession):
    """A message is a frame of a list. Lists leave in the order of their headers, as soon as they are complete."""

    def __init__(self, codec: RadarPackets, context: Context, source: str) -> None:
        super().__init__(codec, context, source)
        self._frames = _Frames(codec.table, codec.mode, codec.clock)
        self._kinds = ("objects",) if codec.table == "objects" else srr520_modes(codec.mode)
        self._assembler = srr520.Assembler()
        self._headers: dict[int, int] = {}
        self._done: list[srr520.RadarList] = []
        self._latest = b""
        self._cycles: dict[str, tuple[int, int]] = {}

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        rows, number, size = Rows(), first_seq, 0
        for arrival in arrivals:
            if arrival.event:
                self._heard(arrival)
            elif arrival.data == self._latest:
                self._drop(_TWICE)
            else:
                self._feed(number, first_seq, arrival, rows)
                number += 1
                size += len(arrival.data)
        self._leave(rows, first_seq)
        return self._framed(self._record(first_seq, []), _Ready(rows, self._frames), number - first_seq, size)

    def _feed(self, number: int, first: int, arrival: Arrival, rows: Rows) -> None:
        sound = {id(found) for found in self._assembler.under_way if not found.error}
        for event in self._assembler.feed(number, arrival.data):
            if isinstance(event, srr520.RadarList):
                self._done.append(event)
                if id(event) in sound and event.error.startswith(f"{len(event.elements)} of "):
                    self._gap(f"a list of {event.kind}: {event.error}")
            elif event[0] == "bad":
                rows.bad.append((number - first, event[1], arrival.data))
            else:
                rows.leave_out(f"not in radar.{self._codec.table}: {event[1]}")
        for found in self._assembler.under_way:
            if found.number == number:
                self._headers[number] = arrival.recv_ns
                self._cycle(found)
            elif found.error and id(found) in sound:
                self._gap(f"a list of {found.kind}: {found.error}")
        self._latest = arrival.data if arrival.data[:4] in srr520.LIST_IDS else b""

    def _cycle(self, found: srr520.RadarList) -> None:
        """Tell whole lists that are missing, where the cycle counter has a step of its own."""
        cycle = int.from_bytes(found.header[15:19], "big")
        before, step = self._cycles.get(found.kind, (cycle, 0))
        made = (cycle - before) % (1 << 32)
        if step and made > step and made % step == 0 and made // step <= _MOST_CYCLE:
            self._gap(f"{made // step - 1} lists of {found.kind} never came: the cycle counter jumped by {made}")
        else:
            step = made if 0 < made <= _MOST_CYCLE else 0
        self._cycles[found.kind] = (cycle, step)

    def finish(self, first_seq: int) -> Framed | None:
        rows = Rows()
        self._done += self._assembler.finish()
        self._leave(rows, first_seq)
        self._noticed += self._losses.ended(self._source)
        return self._framed(self._record(first_seq, []), _Ready(rows, self._frames), 0, 0)

    def _leave(self, rows: Rows, first: int) -> None:
        """Lists that none before them is waited for."""
        while len(self._done) > _MOST_WAITING and self._assembler.under_way:
            slowest = min(self._assembler.under_way, key=lambda found: found.number)
            if slowest.number > min(one.number for one in self._done):
                break
            self._done += self._assembler.give_up(slowest)
        oldest = min((found.number for found in self._assembler.under_way), default=1 << 62)
        going = sorted((one for one in self._done if one.number < oldest), key=lambda one: one.number)
        self._done = [one for one in self._done if one.number >= oldest]
        for one in going:
            host = self._headers.pop(one.number, 0)
            number = one.number - first
            if one.error:
                rows.bad.append((number, f"a list of {one.kind}: {one.error}", b"".join(one.packets)))
            elif one.kind not in self._kinds:
                rows.leave_out(f"not in radar.{self._codec.table}: {one.kind}", len(one.packets))
            else:
                sensor, in_step = one.time()
                rows.numbers.append(number)
                rows.ts_event.append(sensor if in_step and self._codec.clock == "sensor" else host)
                rows.ts_recv.append(host)
                rows.values.append(one)


def srr520_modes(mode: str) -> tuple[str, ...]:
    """The kinds of lists of a mode."""
    return ("near", "hrr") if mode == "both" else (mode,)
