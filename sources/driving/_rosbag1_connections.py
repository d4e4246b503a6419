"""The connections of a ROS 1 bag (a topic as one publisher writes it), and a catalog in the terms of MCAP made of them."""

from __future__ import annotations

from collections.abc import Iterable

from ._mcap_catalog import Catalog, Piece
from ._mcap_format import Channel, MessageType
from ._rosbag1_format import Record, number, parse_fields, text

__all__ = ["Connections", "catalog_from"]


class Connections:
    """Connections by number. Those of one type and checksum share the definition that came first."""

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.types: dict[int, MessageType] = {}
        self._texts: dict[tuple[str, str], bytes] = {}

    def add(self, record: Record, data: bytes) -> None:
        conn, topic = number(record.fields, "conn", 4), text(record.fields, "topic")
        if conn in self.channels:
            return
        fields = parse_fields(data)
        name, checksum = text(fields, "type"), text(fields, "md5sum")
        definition = self._texts.setdefault((name, checksum), fields.get("message_definition", b""))
        self.channels[conn] = Channel(conn, conn, topic, "ros1")
        self.types[conn] = MessageType(conn, name, "ros1msg", definition)


def catalog_from(
    path: str,
    types: Connections,
    pieces: Iterable[tuple[int, Piece]],
    times: tuple[int, int] | None,
    *,
    indexed: bool,
    problem: str = "",
) -> Catalog:
    """A catalog of `pieces`, each with the time of its first message, in the order of those times."""
    ordered = [piece for _, piece in sorted(pieces, key=lambda pair: (pair[0], pair[1].offset))]
    counts: dict[int, int] = {}
    for piece in ordered:
        for conn, messages in piece.counts.items():
            counts[conn] = counts.get(conn, 0) + messages
    return Catalog(
        path=path,
        profile="ros1",
        library="",
        types=types.types,
        channels=types.channels,
        pieces=tuple(ordered),
        counts=counts,
        start_ns=times[0] if times else None,
        end_ns=times[1] if times else None,
        indexed=indexed,
        complete=not problem,
        problem=problem,
    )
