"""Continental ARS548 RDI radar: detections, objects and status from its packets (SOME/IP over UDP, 224.0.2.2:42102).

::

    front = Ars548("drive_0.db3", topic="/sensing/radar/front_center/nebula_packets")     # radar.scan
    tracks = Ars548("capture.pcapng", table="objects")                                    # radar.objects

`decode_ars548` turns packets that came from elsewhere into the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.schema import describe, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from . import _ars548_format as layout
from ._radar_packets import Record
from ._radar_reader import Rows
from .cdr import RADAR_SCAN

__all__ = ["Ars548", "decode_ars548", "inspect_ars548", "is_ars548_packet", "open_ars548"]

#: Where the sensor sends its packets to.
PORT = 42102
_NAME = pa.dictionary(pa.int16(), pa.utf8())
_NAMES: list[tuple[str, pa.DataType]] = [("topic", _NAME), ("frame_id", _NAME)]
_OBJECTS = [("sync", pa.uint8()), ("n_objects", pa.uint32()), ("objects", pa.list_(layout.OBJECT))]
#: By table: what packets it is made of, the columns behind ts_event, ts_recv, seq, units, and what makes them.
_TABLES: dict[str, tuple[str, list[Any], str, Any]] = {
    "scan": ("detections", list(RADAR_SCAN), "m, m/s, dBsm", layout.point_columns),
    "detections": (
        "detections",
        [*_NAMES, *layout.detection_fields()],
        "m, rad, m/s, dBsm, %",
        layout.detection_columns,
    ),
    "objects": ("objects", [*_NAMES, *_OBJECTS], "m, m/s, m/s2, rad, rad/s, %", layout.object_columns),
    "status": ("status", [*_NAMES, *layout.STATUS], "m, rad, ms", layout.status_columns),
}


@dataclass(frozen=True)
class Ars548(SourceSpec):
    """The packets of one ARS548 in a rosbag2 recording (`topic` of NebulaPackets, if there are several) or a capture.

    `table` is one of

    - ``scan``: `radar.scan`, a row for each detection list: `n_points`, `points` (x, y, z in m from the sensor, x forward,
      y left, z up; vr in m/s, positive away; rcs in dBsm; track_id the object's id; flags: bits 0 to 7 what the sensor
      marks as invalid, from bit 8 the classification). What is marked as invalid is null.
    - ``detections``: all that a detection list says, as the sensor says it (azimuth, elevation, range, deviations, ...).
    - ``objects``: `radar.objects`, a row for each object list: `sync`, `n_objects`, `objects`.
    - ``status``: a row for each sensor status: mounting, set-up, and what is not well.

    ``ts_event`` is the sensor's time where it says that it is in step with the network (1: sync), else when the host
    received the packet; `clock` ``host`` takes the latter always. ``ts_recv`` is the log time of a bag or the time of
    capture, ``seq`` the number of the packet in the file. Packets of other tables are counted as dropped. Packets whose
    length or counts are wrong, or that are not of this radar, are bad records. `port` is for captures.

    Raises GraphError for wrong arguments; `open` raises FormatError for a file that is neither, or has no such topic.
    Layout: tier4/nebula, continental_ars548.hpp; schema: formats, section 6, item 2.
    """

    format: ClassVar[str] = "ars548"

    path: PathLike
    table: str = "scan"
    _: KW_ONLY
    topic: str | None = None
    port: int = PORT
    clock: str = "sensor"
    lateness: Duration = "100ms"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in _TABLES:
            raise GraphError(f"Ars548 has no table {self.table!r}; choose one of {', '.join(_TABLES)}")
        if self.clock not in ("sensor", "host"):
            raise GraphError(f"clock is 'sensor' or 'host', not {self.clock!r}")
        if not 0 <= self.port < 65536:
            raise GraphError(f"port={self.port!r} is no port; give a number from 0 to 65535")
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
        _, fields, units, _ = _TABLES[self.table]
        kind = f"radar.{self.table}"
        return event_schema(fields, source=self.name, format=self.format, table=kind, units=units)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._radar_packets import count_in, open_records
        from ._radar_reader import RadarReader

        path, position = location(self.path), position or {}
        records = open_records(path, topic=self.topic, port=self.port, context=context, position=position)
        first = count_in(position, "seq", path)
        return RadarReader(records, _Packets(self.table, self.clock), self.schema, first)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a packet again; ``ts_recv`` is null, since it is not part of it. None if it holds no time in step."""
        if record.operation != _Packets.operation:
            return None
        from ._radar_packets import Packet, Record
        from ._radar_reader import OneRecord, RadarReader

        alone = Record(record.seq or 0, [Packet(record.data, 0)], 0, "", self.topic or "", record.place, 0, after={})
        reader = RadarReader(OneRecord(alone), _Packets(self.table, "sensor"), self.schema, alone.first)
        (decoded,) = (reader.decode(block) for block in reader.blocks())
        if decoded.bad:
            return Decoded((), [record])
        if not decoded.batches or layout.sensor_time(record.data, layout.kind_of(record.data) or "")[1] is False:
            return None
        batch = decoded.batches[0]
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["ts_recv"] = pa.nulls(1, columns["ts_recv"].type)
        return Decoded([pa.RecordBatch.from_pydict(columns)])

    @property
    def block_bound(self) -> int:
        """A block of the bag or capture, at most 4 MiB of messages a few kilobytes each, packed and as columns."""
        return 32 << 20


class _Packets:
    """How packets become rows of one table."""

    operation = "ars548.decode"

    def __init__(self, table: str, clock: str) -> None:
        self._kind, _, _, self._columns = _TABLES[table]
        self._table, self._clock = table, clock

    def rows(self, record: Record) -> Rows:
        found = Rows()
        for number, packet in enumerate(record.packets):
            kind = layout.kind_of(packet.data)
            if kind is None:
                head = packet.data[:8].hex(" ") or "nothing"
                found.bad.append((number, f"no packet of an ARS548: it begins with {head}", packet.data))
            elif kind != self._kind:
                found.leave_out(f"not in radar.{self._table}: {kind}")
            elif (error := layout.packet_error(packet.data, kind)) is not None:
                found.bad.append((number, error, packet.data))
            else:
                sensor, in_step = layout.sensor_time(packet.data, kind)
                host = packet.stamp_ns or record.recv_ns
                found.numbers.append(number)
                found.ts_event.append(sensor if in_step and self._clock == "sensor" else host)
                found.ts_recv.append(record.recv_ns or host)
                found.values.append(packet.data)
        return found

    def columns(self, values: Sequence[Any]) -> dict[str, pa.Array]:
        made: dict[str, pa.Array] = self._columns(values)
        return made


def decode_ars548(packets: Sequence[bytes], table: str = "scan") -> dict[str, pa.Array]:
    """The columns of `table` behind topic and frame_id, a row for each packet, which must all be of that table.

    Raises ValueError naming the first packet that is not, and what is wrong with it.
    """
    kind, _, _, columns = _TABLES[table]
    for number, packet in enumerate(packets):
        found = layout.kind_of(packet)
        error = f"it holds {found or 'something else'}, not {kind}" if found != kind else None
        if (error := error or layout.packet_error(packet, kind)) is not None:
            raise ValueError(f"packet {number}: {error}")
    made: dict[str, pa.Array] = columns(packets)
    return made


def is_ars548_packet(packet: bytes) -> bool:
    """Whether a UDP payload is a packet of an ARS548: detections, objects or one of its status reports.

    A file is a bag or a capture before it is a radar's, so there is no telling by its first bytes.
    """
    return layout.kind_of(packet) is not None


def open_ars548(path: PathLike, **options: Any) -> Ars548:
    """The source of an ARS548's packets: detections as `radar.scan` unless told otherwise."""
    return Ars548(path, **options)


def inspect_ars548(path: PathLike, **options: Any) -> dict[str, Any]:
    """What a recording of an ARS548 holds; takes the arguments of `Ars548`.

    Keys: ``format``, ``messages`` (packets), ``types`` (packets by kind), ``bad``, ``schema``.
    """
    spec = Ars548(path, **options)
    from ._radar_packets import open_records

    text = location(spec.path)
    records = open_records(text, topic=spec.topic, port=spec.port, context=Context("inspect"), position={})
    counts: dict[str, int] = {}
    bad = 0
    try:
        for record in records.records():
            bad += len(record.bad)
            for packet in record.packets:
                kind = layout.kind_of(packet.data) or "other"
                counts[kind] = counts.get(kind, 0) + 1
    finally:
        records.close()
    return {
        "format": spec.format,
        "messages": sum(counts.values()) + bad,
        "types": dict(sorted(counts.items())),
        "bad": bad,
        "schema": describe(spec.schema),
    }
