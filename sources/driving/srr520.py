"""Continental SRR520 corner radar: near and far (HRR) detections and objects from its CAN-FD frames.

::

    corner = Srr520("drive_0.db3", topic="/sensing/radar/front_left/nebula_packets")      # radar.scan
    tracks = Srr520("drive_0.db3", table="objects")                                       # radar.objects

`decode_srr520` turns frames that came from elsewhere into the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.schema import describe, event_schema
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from . import _srr520_format as layout
from ._radar_packets import BagPackets, Record
from ._radar_reader import RadarReader, Rows
from .cdr import RADAR_SCAN

__all__ = ["Srr520", "decode_srr520", "inspect_srr520", "open_srr520"]

_NAME = pa.dictionary(pa.int16(), pa.utf8())
_NAMES: list[tuple[str, pa.DataType]] = [("topic", _NAME), ("frame_id", _NAME)]
#: By table: the columns behind ts_event, ts_recv, seq, units, and what makes them.
_TABLES: dict[str, tuple[list[Any], str, Any]] = {
    "scan": (list(RADAR_SCAN), "m, m/s, dBsm, dB", layout.point_columns),
    "detections": ([*_NAMES, *layout.detection_fields()], "m, rad, m/s, dBsm, dB, us", layout.detection_columns),
    "objects": ([*_NAMES, *layout.object_fields()], "m, m/s, m/s2, rad, dBsm, %, us", layout.object_columns),
}
_MODES = {"both": ("near", "hrr"), "near": ("near",), "hrr": ("hrr",)}


@dataclass(frozen=True)
class Srr520(SourceSpec):
    """The frames of one SRR520 in a rosbag2 recording, sqlite3 or MCAP (`topic` of NebulaPackets, if there are several).

    `table` is one of

    - ``scan``: `radar.scan`, a row for each detection list of `mode` (``near``, ``hrr`` or ``both``): `n_points`, `points`
      (x, y in m from the sensor, x forward, y left; vr in m/s, positive away; rcs in dBsm; snr in dB; flags: bits 0 to 4
      pdh00 to pdh04, bit 8 an HRR detection; z and track_id null).
    - ``detections``: all that a detection list says, as the sensor says it.
    - ``objects``: `radar.objects`, a row for each object list, in the vehicle's frame.

    ``ts_event`` is the sensor's time where it says that it is in step with the network (1: sync), else when the host
    received the header; `clock` ``host`` takes the latter always. ``ts_recv`` is the log time of the bag, ``seq`` the
    number of the header among all frames of the topic. Frames and lists of other tables are counted as dropped. A list
    that is not complete within its message, whose counters jump or whose CRC is wrong is a bad record, and so is a frame
    that belongs to no list.

    Raises GraphError for wrong arguments; `open` raises FormatError for a file that is no bag or has no such topic.
    Layout: tier4/nebula, continental_srr520_decoder.cpp; schema: formats, section 6, item 2.
    """

    format: ClassVar[str] = "srr520"

    path: PathLike
    table: str = "scan"
    _: KW_ONLY
    topic: str | None = None
    mode: str = "both"
    clock: str = "sensor"
    lateness: Duration = "100ms"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in _TABLES:
            raise GraphError(f"Srr520 has no table {self.table!r}; choose one of {', '.join(_TABLES)}")
        if self.mode not in _MODES:
            raise GraphError(f"mode is one of {', '.join(_MODES)}, not {self.mode!r}")
        if self.clock not in ("sensor", "host"):
            raise GraphError(f"clock is 'sensor' or 'host', not {self.clock!r}")
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return base_name(self.path) + (f":{self.topic}" if self.topic else "")

    @property
    def schema(self) -> pa.Schema:
        fields, units, _ = _TABLES[self.table]
        kind = f"radar.{self.table}"
        return event_schema(fields, source=self.name, format=self.format, table=kind, units=units)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._radar_packets import count_in

        path, position = location(self.path), position or {}
        records = BagPackets(path, self.topic, context, position)
        first = count_in(position, "seq", path)
        return RadarReader(records, _Frames(self.table, self.mode, self.clock), self.schema, first)

    @property
    def block_bound(self) -> int:
        """A block of the bag or capture, at most 4 MiB of messages a few kilobytes each, packed and as columns."""
        return 32 << 20


class _Frames:
    """How frames become rows of one table."""

    operation = "srr520.decode"

    def __init__(self, table: str, mode: str, clock: str) -> None:
        self._table, self._clock = table, clock
        self._kinds = ("objects",) if table == "objects" else _MODES[mode]
        _, _, self._columns = _TABLES[table]

    def rows(self, record: Record) -> Rows:
        found, assembler = Rows(), layout.Assembler()
        lists: list[layout.RadarList] = []
        for number, packet in enumerate(record.packets):
            for event in assembler.feed(number, packet.data):
                if isinstance(event, layout.RadarList):
                    lists.append(event)
                elif event[0] == "bad":
                    found.bad.append((number, event[1], packet.data))
                else:
                    found.leave_out(f"not in radar.{self._table}: {event[1]}")
        lists += assembler.finish()
        for one in sorted(lists, key=lambda found: found.number):
            if one.error:
                found.bad.append((one.number, f"a list of {one.kind}: {one.error}", b"".join(one.packets)))
            elif one.kind not in self._kinds:
                found.leave_out(f"not in radar.{self._table}: {one.kind}", len(one.packets))
            else:
                sensor, in_step = one.time()
                host = record.packets[one.number].stamp_ns or record.recv_ns
                found.numbers.append(one.number)
                found.ts_event.append(sensor if in_step and self._clock == "sensor" else host)
                found.ts_recv.append(record.recv_ns or host)
                found.values.append(one)
        found.bad.sort(key=lambda bad: bad[0])
        return found

    def columns(self, values: Sequence[Any]) -> dict[str, pa.Array]:
        made: dict[str, pa.Array] = self._columns(values)
        return made


def decode_srr520(packets: Sequence[bytes], table: str = "scan", *, mode: str = "both") -> dict[str, pa.Array]:
    """The columns of `table` behind topic and frame_id, a row for each list in `packets` (CAN id and data).

    Raises ValueError naming the first packet or list that is wrong.
    """
    kinds = ("objects",) if table == "objects" else _MODES[mode]
    assembler, lists = layout.Assembler(), list[layout.RadarList]()
    for number, packet in enumerate(packets):
        for event in assembler.feed(number, packet):
            if isinstance(event, layout.RadarList):
                lists.append(event)
            elif event[0] == "bad":
                raise ValueError(f"packet {number}: {event[1]}")
    lists += assembler.finish()
    for one in lists:
        if one.error:
            raise ValueError(f"packet {one.number}, a list of {one.kind}: {one.error}")
    lists.sort(key=lambda found: found.number)
    made: dict[str, pa.Array] = _TABLES[table][2]([one for one in lists if one.kind in kinds])
    return made


def open_srr520(path: PathLike, **options: Any) -> Srr520:
    """The source of an SRR520's frames: detections as `radar.scan` unless told otherwise."""
    return Srr520(path, **options)


def inspect_srr520(path: PathLike, **options: Any) -> dict[str, Any]:
    """What a recording of an SRR520 holds; takes the arguments of `Srr520`.

    Keys: ``format``, ``messages`` (frames), ``types`` (lists by kind), ``bad``, ``schema``.
    """
    spec = Srr520(path, **options)
    records = BagPackets(location(spec.path), spec.topic, Context("inspect"), {})
    counts: dict[str, int] = {}
    frames = bad = 0
    try:
        for record in records.records():
            frames += record.count
            bad += len(record.bad)
            assembler = layout.Assembler()
            events = [event for i, packet in enumerate(record.packets) for event in assembler.feed(i, packet.data)]
            for event in [*events, *assembler.finish()]:
                wrong = event.error if isinstance(event, layout.RadarList) else event[0] == "bad"
                kind = event.kind if isinstance(event, layout.RadarList) else event[1]
                bad += bool(wrong)
                if not wrong:
                    counts[kind] = counts.get(kind, 0) + 1
    finally:
        records.close()
    return {
        "format": spec.format,
        "messages": frames,
        "types": dict(sorted(counts.items())),
        "bad": bad,
        "schema": describe(spec.schema),
    }
