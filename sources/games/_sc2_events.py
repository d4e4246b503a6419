"""Events of a StarCraft II replay, as sc2reader finds them, to rows of ``game.event``."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from importlib import metadata
from io import BytesIO
from typing import Any

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.errors import FormatError, MissingExtraError
from ...pipeline.schema import TIMESTAMP, event_schema
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.unpack import open_feed

__all__ = ["Sc2Reader", "event_rows_schema", "load_replay", "ns_of"]

_MOST_BYTES, _EVENTS = 64 << 20, 4096
#: Tenths of a frame a second of real time, by game speed.
_TENTHS = {"Slower": 96, "Slow": 128, "Normal": 160, "Fast": 192, "Faster": 224}
#: What is kept of an event besides its columns. Text of chats and names are not.
_KEPT = (
    *("frame", "control_pid", "upkeep_pid", "unit_id", "unit_type_name", "ability_name", "ability_id"),
    *(
        "target_unit_id",
        "killer_pid",
        "flags",
        "control_group",
        "upgrade_type_name",
        "count",
        "distance",
        "pitch",
        "yaw",
    ),
    *("minerals_current", "vespene_current", "food_used", "food_made", "minerals_collection_rate"),
    *("vespene_collection_rate", "workers_active_count"),
)


def event_rows_schema(source: str) -> pa.Schema:
    """``game.event``; FORMATS section 6, item 6."""
    fields = [
        pa.field("match_id", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("type", pa.dictionary(pa.int16(), pa.utf8()), nullable=False),
        pa.field("player", pa.int16(), nullable=False),
        pa.field("target", pa.int16(), nullable=False),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("z", pa.float32()),
        pa.field("value", pa.float64()),
        pa.field("attrs", pa.large_utf8(), nullable=False),
    ]
    return event_schema(fields, source=source, format="sc2replay", units="x, y map cells")


def ns_of(frame: int, speed: str) -> int:
    """Nanoseconds of real time from the start to `frame`, rounded down; 22.4 frames a second on Faster."""
    return frame * 10**10 // _TENTHS.get(speed, 224)


def load_replay(path: str, *, events: bool) -> tuple[Any, str, str]:
    """The replay as sc2reader has it, a short digest of its bytes, and what was left out of it (empty if nothing).

    A game that was resumed from a replay comes without tracker events (units, resources): sc2reader says that it cannot
    follow them. Raises MissingExtraError, FormatError, OSError.
    """
    try:
        import sc2reader  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("reading StarCraft II replays", "sc2reader", "games") from None
    feed = open_feed(path)
    try:
        view = memoryview(bytearray(_MOST_BYTES + 1))
        data = bytes(view[: feed.fill(view)])
    finally:
        feed.close()
    if not data:
        raise FormatError(f"{path} is empty: no StarCraft II replay to read")
    if data[:3] != b"MPQ":
        raise FormatError(
            f"{path} is not a StarCraft II replay: offset 0 holds {data[:8].hex(' ')}, expected 4d 50 51 (MPQ)"
        )
    if len(data) > _MOST_BYTES:
        raise FormatError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, which no StarCraft II replay is")
    build, left_out = "unknown", ""
    logger = logging.getLogger("sc2reader")  # what it says of odd events names players
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        header = sc2reader.load_replay(BytesIO(data), load_level=0)
        build = f"{header.release_string}"
        level_of_detail = 4 if events else 2
        try:
            replay = sc2reader.load_replay(BytesIO(data), load_level=level_of_detail, load_map=False)
        except sc2reader.exceptions.CorruptTrackerFileError:
            left_out = "the game was resumed from a replay: it is read without its tracker events (units, resources)"
            replay = sc2reader.load_replay(
                BytesIO(data), load_level=level_of_detail, load_map=False, do_tracker_events=False
            )
        if events:
            list(replay.events)
    except Exception as error:
        version = metadata.version("sc2reader")
        raise FormatError(
            f"{path}: sc2reader {version} cannot read this replay (version {build}): {type(error).__name__}: {error}. "
            "New builds of the game need a newer sc2reader; else the file is damaged"
        ) from error
    finally:
        logger.setLevel(level)
    return replay, hashlib.sha256(data).hexdigest()[:12], left_out


class Sc2Reader(SourceReader):
    """Reads one replay: sc2reader parses it whole, rows follow in the file's order of events."""

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        match: str | None,
        start: int | None,
        context: Context,
        position: Position | None,
    ) -> None:
        self._path, self._schema, self._context = path, schema, context
        self._from = int(position["seq"]) if position else 0
        self._match, self._start, self._speed = match or "", start or 0, "Faster"
        self._given = match, start

    def blocks(self) -> Iterator[Block]:
        replay, digest, left_out = load_replay(self._path, events=True)
        if left_out:
            self._context.note(left_out)
        match, start = self._given
        self._match = digest if match is None else match
        self._speed = replay.speed
        if start is None:
            start = int(replay.start_time.timestamp()) * 10**9 if replay.start_time is not None else 0
        self._start = start
        events = replay.events
        for index, first in enumerate(range(self._from, len(events), _EVENTS)):
            part = events[first : first + _EVENTS]
            yield Block(index, first, len(part), 256 * len(part), {"seq": first + len(part)}, part)

    def decode(self, block: Block) -> Decoded:
        events: Sequence[Any] = block.payload
        times = pa.array([self._start + ns_of(event.frame, self._speed) for event in events], TIMESTAMP)
        count = len(events)
        nothing = pa.nulls(count, pa.float32())
        names = pa.array([type(event).__name__ for event in events], pa.utf8()).dictionary_encode()
        names = pa.DictionaryArray.from_arrays(names.indices.cast(pa.int16()), names.dictionary)
        columns = [
            times,
            times,
            pa.array(range(block.first_seq, block.first_seq + count), pa.uint64()),
            pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([self._match], pa.utf8())),
            names,
            pa.array([_player(event) for event in events], pa.int16()),
            pa.array([-1] * count, pa.int16()),
            pa.array([_number(event, "x") for event in events], pa.float32()),
            pa.array([_number(event, "y") for event in events], pa.float32()),
            nothing,
            pa.nulls(count, pa.float64()),
            pa.array([_attrs(event) for event in events], pa.large_utf8()),
        ]
        return Decoded([pa.RecordBatch.from_arrays(columns, schema=self._schema)])


def _player(event: Any) -> int:
    player = getattr(event, "pid", None)
    return player if isinstance(player, int) and 0 <= player < 1 << 15 else -1


def _number(event: Any, name: str) -> float | None:
    value = getattr(event, name, None)
    return float(value) if isinstance(value, int | float) else None


def _attrs(event: Any) -> str:
    kind, there = type(event), tuple(event.__dict__)
    names = _names_of.get((kind, there))
    if names is None:
        names = _names_of[kind, there] = tuple(name for name in _KEPT if name in there or hasattr(kind, name))
    found = {name: value for name in names if isinstance(value := getattr(event, name), _PLAIN)}
    return _JSON.encode(found)


_PLAIN = (int, float, str)
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
#: Which of the values that are kept events of a class with certain attributes have: looked up once.
_names_of: dict[tuple[type, tuple[str, ...]], tuple[str, ...]] = {}
