"""The messages of a vehicle's recording: MCAP files, ROS 1 bags, rosbag2 files and folders.

A message is one message of a topic, on the topic's channel, at its log time. Topics keep the order that their file source
gives them. A recording of radar packets alone (nebula_msgs/NebulaPackets) goes out packet by packet, as the sensor sent
them, each at the log time of its message, which is the ``ts_recv`` of the file's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.context import Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ..driving._mcap_topic import CHUNK_LIMIT
from ..driving._radar_packets import NEBULA, nebula_packets
from ..driving.rosbag1 import is_rosbag1
from ..live._recorded_topics import catalog_at, channels_at, opened_at, type_at
from ..storage.unpack import head_of
from ._decoded import count
from .message import Message, Playable

if TYPE_CHECKING:
    from ..driving._mcap_catalog import Catalog, Piece
    from ..driving._mcap_chunk import RecordFile
    from ..driving._mcap_format import Channel
    from ..driving._rosbag2_sqlite import Database, RowUnit

__all__ = ["topics_playable"]

_UNREADABLE = "parts of the recording could not be read"
_BROKEN = "messages could not be read"


def topics_playable(path: str, *, topic: str | Sequence[str] | None = None) -> Playable:
    """All topics of the recording at `path`, or those named. Raises FormatError for a topic that it does not have."""
    channels = channels_at(path)
    names = list(channels) if topic is None else [topic] if isinstance(topic, str) else list(topic)
    for name in names:
        if name not in channels:
            raise FormatError(f"{path}: no topic {name!r}; it has {', '.join(channels) or 'none'}")
    chosen = {name: channels[name] for name in names}
    skipped: dict[str, int] = {}
    catalog = catalog_at(path)

    def messages() -> Iterator[Message]:
        if catalog is not None:
            return _of_catalog(catalog, chosen, skipped)
        return _of_rosbag2(path, chosen, skipped)

    told = ", ".join(f"{number} {name}" for name, number in list(chosen.items())[:20])
    more = f" and {len(chosen) - 20} more" if len(chosen) > 20 else ""
    if chosen and all(type_at(path, name).type == NEBULA for name in chosen):
        note = f"radar packets, each as the sensor sent it, of {told}{more}"
        return Playable(lambda: _packets(messages(), skipped), topics=chosen, note=note, skipped=skipped)
    return Playable(messages, topics=chosen, note=f"messages by channel: {told}{more}", skipped=skipped)


def _numbers(channels: dict[int, Channel], chosen: dict[str, int]) -> dict[int, int]:
    """Channels or connections of a file to the numbers of their topics."""
    return {number: chosen[channel.topic] for number, channel in channels.items() if channel.topic in chosen}


def in_order(times: Any, topics: Any) -> Any:
    """Positions by time, but none before one of its own topic that the file has in front of it."""
    keys = times.copy()
    for topic in np.unique(topics).tolist():
        rows = np.flatnonzero(topics == topic)
        keys[rows] = np.maximum.accumulate(times[rows])
    return np.argsort(keys, kind="stable")


def _of_catalog(catalog: Catalog, chosen: dict[str, int], skipped: dict[str, int]) -> Iterator[Message]:
    numbers = _numbers(dict(catalog.channels), chosen)
    if is_rosbag1(head_of(catalog.path, 16)[0]):
        yield from _of_bag(catalog, numbers, skipped)
        return
    from ..driving._mcap_raw import raw_blocks

    for block in raw_blocks(catalog, CHUNK_LIMIT):
        if block.error:
            count(skipped, _UNREADABLE)
        topics = np.array([numbers.get(number, -1) for number in block.channel.tolist()], np.int64)
        rows = np.flatnonzero(topics >= 0)
        for i in rows[in_order(block.log_time[rows], topics[rows])].tolist():
            yield Message(int(block.log_time[i]), block.payload(i), int(topics[i]))


def _of_bag(catalog: Catalog, numbers: dict[int, int], skipped: dict[str, int]) -> Iterator[Message]:
    from ..driving._mcap_catalog import BROKEN
    from ..driving._mcap_chunk import RecordFile
    from ..driving._rosbag1_chunk import BagFraming

    framing = BagFraming()
    pool = BufferPool(keep=4 * CHUNK_LIMIT)
    with RecordFile(catalog.path) as file:
        for piece in catalog.pieces:
            if piece.kind == BROKEN or piece.error:
                count(skipped, _UNREADABLE)
            if piece.kind != BROKEN:
                yield from _of_chunk(file, piece, framing, numbers, pool, skipped)


def _of_chunk(
    file: RecordFile, piece: Piece, framing: Any, numbers: dict[int, int], pool: BufferPool, skipped: dict[str, int]
) -> Iterator[Message]:
    from ..driving._mcap_catalog import CHUNKED
    from ..driving._rosbag1_chunk import records_of
    from ..driving._rosbag1_format import MESSAGE

    try:
        loaded = file.load(piece.offset, piece.length, pool)
        if piece.kind == CHUNKED:
            loaded, _ = framing.unpack(loaded, CHUNK_LIMIT, pool, piece.size)
    except FormatError:
        count(skipped, _UNREADABLE)
        return
    records = records_of(loaded.data)
    topics = np.array([numbers.get(conn, -1) for conn in records.conns.tolist()], np.int64)
    rows = np.flatnonzero((records.ops == MESSAGE) & (topics >= 0))
    for i in rows[np.argsort(records.times[rows], kind="stable")].tolist():
        start = int(records.starts[i])
        data = loaded.data[start : start + int(records.lengths[i])].tobytes()
        yield Message(int(records.times[i]), data, int(topics[i]))


def _of_rosbag2(path: str, chosen: dict[str, int], skipped: dict[str, int]) -> Iterator[Message]:
    recording = opened_at(path)
    for catalog in recording.catalogs:
        yield from _of_catalog(catalog, chosen, skipped)
    for file in recording.databases:
        yield from _of_database(file, chosen, skipped)


class _Nothing:
    """What a decoder gives that made no rows."""

    def __init__(self, wrong: list[int]) -> None:
        import pyarrow as pa

        self.batch, self.copied = pa.RecordBatch.from_arrays([], names=[]), 0
        self.bad = [(i, "") for i in wrong]


def _of_database(file: Database, chosen: dict[str, int], skipped: dict[str, int]) -> Iterator[Message]:
    from ..driving._rosbag2_rows import RowReader, payload_of

    topics = {topic.id: topic for topic in file.topics if topic.name in chosen}
    kept: list[Any] = []

    def keep(data: Any, starts: Any, lengths: Any, log_times: Any, first: int, pool: BufferPool) -> Any:
        kept[:] = [data, starts.tolist(), lengths.tolist(), log_times.tolist()]
        return _Nothing(np.flatnonzero(log_times < 0).tolist())

    if file.damage:
        count(skipped, _UNREADABLE)
    reader = RowReader(file, topics, "", keep, CHUNK_LIMIT, Context("replay"))
    try:
        for unit in file.units(set(topics)):
            reader.decode(unit)
            for (time, data), own in zip(_payloads(kept), _topics_of(file, unit), strict=True):
                try:
                    if time >= 0:
                        yield Message(
                            time, payload_of(data, topics[own].encoding, CHUNK_LIMIT), chosen[topics[own].name]
                        )
                    else:
                        count(skipped, _BROKEN)
                except FormatError:
                    count(skipped, _BROKEN)
    finally:
        reader.close()


def _payloads(kept: list[Any]) -> Iterator[tuple[int, bytes]]:
    data, starts, lengths, times = kept
    for start, length, time in zip(starts, lengths, times, strict=True):
        yield time, data[start : start + length].tobytes()


def _topics_of(file: Database, unit: RowUnit) -> list[int]:
    at = np.searchsorted(file.ids, unit.ids)
    found: list[int] = file.topic_ids[at].tolist()
    return found


def _packets(messages: Iterator[Message], skipped: dict[str, int]) -> Iterator[Message]:
    """The packets in messages of nebula_msgs/NebulaPackets."""
    for message in messages:
        try:
            _, packets = nebula_packets(message.data)
        except ValueError:
            count(skipped, _BROKEN)
            continue
        for packet in packets:
            yield Message(message.ts_ns, packet.data, message.channel)
