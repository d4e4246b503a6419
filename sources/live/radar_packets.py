"""Packets of automotive radars as they come: an ARS548 over UDP, the frames of an SRR520 from whatever passes them on.

front = sources.live_radar("udp://224.0.2.2:42102?interface=10.13.1.166")               # radar.scan
tracks = sources.live_radar("udp://224.0.2.2:42102", table="objects")                    # radar.objects
corner = sources.live_radar("udp://127.0.0.1:9000", "srr520")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.errors import GraphError
from ..driving.ars548 import Ars548
from ..driving.srr520 import Srr520
from .feed import Live
from .session import Codec, Session

__all__ = ["RadarPackets", "live_radar"]

SENSORS = ("ars548", "srr520")


@dataclass(frozen=True)
class RadarPackets(Codec):
    """Packets of one radar, with the tables and columns of `Ars548` (a message is a SOME/IP packet) or `Srr520` (a message
    is a CAN-FD frame, its id of 4 bytes in front, as nebula has them). `topic` and `frame_id` fill these columns.

    ``ts_recv`` is when the packet came, of a list of the SRR520 its header; ``seq`` numbers packets. A packet that is not
    whole, or of another sender, is a bad record.

    What is lost: an ARS548 counts its packets of each kind in their end-to-end protection, and a jump is a bad record
    ``live.gap`` at the next packet. Where a sensor leaves the counter at 0 a lost packet cannot be seen; such packets
    are noted. The frames of an SRR520's list are counted: a lost one is a ``live.gap`` at the next frame, and the list a bad
    record. Lists of which no frame came show by the cycle counter, once two cycles have told how it counts. A packet that
    comes twice counts once; one that comes late keeps its place in the order of arrival, and is noted.
    """

    name: ClassVar[str] = "radar"
    framing: ClassVar[str] = "u32"
    sensor: str = "ars548"
    table: str = "scan"
    mode: str = "both"
    clock: str = "sensor"
    topic: str = ""
    frame_id: str = ""

    def __post_init__(self) -> None:
        if self.sensor not in SENSORS:
            raise GraphError(f"no sensor {self.sensor!r}", expected=" | ".join(SENSORS))
        self._like("feed")

    def _like(self, source: str) -> Ars548 | Srr520:
        if self.sensor == "ars548":
            return Ars548(source, self.table, clock=self.clock)
        return Srr520(source, self.table, mode=self.mode, clock=self.clock)

    def schema(self, source: str) -> pa.Schema:
        schema = self._like("feed").schema
        return schema.with_metadata({**schema.metadata, b"penstock.source": source.encode()})

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        from ._radar_sessions import Ars548Session, Srr520Session

        kind = Ars548Session if self.sensor == "ars548" else Srr520Session
        return kind(self, context, source)

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> RadarPackets:
        """The codec of which `describe` gave `values`."""
        return cls(**values)


def live_radar(url: str | tuple[str, ...], sensor: str = "ars548", **options: Any) -> Live:
    """Detections or objects of a radar (``ars548``, ``srr520``) from a feed; options of `RadarPackets` and `Live`.

    A multicast address is joined on ``?interface=`` (its name, number or address). The sensor's time is behind the time of
    receipt by its cycle: rows may be late by `lateness`, 100 ms unless told otherwise.
    """
    own = {key: options.pop(key) for key in ("table", "mode", "clock", "topic", "frame_id") if key in options}
    return Live(url, RadarPackets(sensor, **own), **{"lateness": "100ms", **options})
