"""What a Slippi replay is made of: the UBJSON container, the table of event sizes, the start of a game, the metadata.

``{U 3 raw [$U#l <length> <events> U 8 metadata {...} }``: `raw` is an array of bytes with events, each a code and as many
bytes as the first event's table says for it; a `raw` length of 0 means that the file is still being written. What the
console or the network sends is the same events without the container. Spec: project-slippi/slippi-wiki, SPEC.md.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.errors import FormatError
from ...pipeline.schema import event_schema

__all__ = [
    "BOOKEND",
    "EVENTS",
    "FIRST_FRAME",
    "FRAME_NS",
    "GAME_END",
    "GAME_START",
    "HEAD",
    "SIZES",
    "TABLES",
    "Container",
    "Opening",
    "detect",
    "game_schema",
    "parse_container",
    "parse_metadata",
    "parse_opening",
    "start_ns",
]

FIRST_FRAME = -123
#: A frame of 60 Hz video by NTSC, as FORMATS 6 item 5 has it.
FRAME_NS = 16_683_333
#: Bytes from the beginning that always hold the container's head, the table of sizes and the whole start of the game.
HEAD = 128 << 10

SIZES, GAME_START, PRE, POST, GAME_END, FRAME_START, ITEM, BOOKEND = 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x3B, 0x3C
EVENTS: Mapping[int, str] = {
    0x10: "message splitter",
    SIZES: "event sizes",
    GAME_START: "game start",
    PRE: "pre-frame update",
    POST: "post-frame update",
    GAME_END: "game end",
    FRAME_START: "frame start",
    ITEM: "item update",
    BOOKEND: "frame bookend",
    0x3D: "gecko list",
    0x3F: "Fountain of Dreams platform",
    0x40: "Dream Land Whispy",
    0x41: "Pokemon Stadium transformation",
}
#: The event that fills each table.
TABLES: Mapping[str, int] = {"input": PRE, "state": POST}

_METADATA = b"U\x08metadata"
_INTEGERS = {b"U": ">B", b"i": ">b", b"I": ">h", b"l": ">i", b"L": ">q", b"d": ">f", b"D": ">d"}
_DEPTH, _EMPTIES = 32, 65_536


@dataclass(frozen=True, slots=True)
class Container:
    """Where the events are: from `start` on, `length` bytes (None: unknown, the file is still being written, or there is
    no container)."""

    start: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Opening:
    """The first events: `sizes` by code (-1 unknown), `end` of the table in the content, the start of the game (empty if it
    is missing) and what stands in it. `match` is the match's id without personal data."""

    sizes: npt.NDArray[np.int32]
    end: int
    start: bytes
    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    match: str = ""


def game_schema(table: str, source: str) -> pa.Schema:
    """``game.input`` or ``game.state``: one row per frame and character; FORMATS section 6, item 5."""
    keys = [
        pa.field("match_id", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("player", pa.uint8(), nullable=False),
        pa.field("follower", pa.bool_(), nullable=False),
    ]
    if table == "input":
        sticks = ("stick_x", "stick_y", "c_x", "c_y", "trigger_l", "trigger_r")
        own = [pa.field(name, pa.float32()) for name in sticks]
        own += [
            pa.field("buttons", pa.uint32()),
            pa.field("buttons_phys", pa.uint16()),
            pa.field("action_state", pa.uint16()),
            pa.field("seed", pa.uint32()),
        ]
        units = "stick_x, stick_y, c_x, c_y -1 to 1; trigger_l, trigger_r 0 to 1"
    else:
        own = [
            pa.field("character", pa.uint8()),
            pa.field("action_state", pa.uint16()),
            pa.field("x", pa.float32()),
            pa.field("y", pa.float32()),
            pa.field("facing", pa.int8()),
            pa.field("percent", pa.float32()),
            pa.field("shield", pa.float32()),
            pa.field("stocks", pa.uint8()),
            pa.field("airborne", pa.bool_()),
        ]
        units = "x, y game units; percent %; shield 0 to 60"
    return event_schema([*keys, *own], source=source, format="slippi", units=units)


def parse_container(head: bytes, path: str) -> Container:
    """Where the events of a file that begins with `head` are. Raises FormatError if it is no Slippi replay."""
    if head[:1] == b"{":
        at, key = _key(head, 1)
        if key == b"raw" and head[at : at + 4] == b"[$U#":
            count = head[at + 4 : at + 5]
            form = _INTEGERS.get(count) if count in (b"U", b"i", b"I", b"l", b"L") else None
            if form is not None and len(head) >= at + 5 + struct.calcsize(form):
                length = int(struct.unpack_from(form, head, at + 5)[0])
                if length < 0:
                    raise FormatError(f"{path}, offset {at + 5}: the raw element says it has {length} bytes")
                return Container(at + 5 + struct.calcsize(form), length or None)
    elif _sizes_at(head, 0) is not None:
        return Container(0, None)
    raise FormatError(
        f"{path} is not a Slippi replay: offset 0 holds {head[:16].hex(' ') or 'nothing'}; "
        "expected 7b 55 03 72 61 77 5b 24 55 23 6c, or events that begin with 35"
    )


def _key(data: bytes, at: int) -> tuple[int, bytes]:
    """Position behind a key and the key; an impossible one is empty."""
    if data[at : at + 1] not in (b"U", b"i") or len(data) < at + 2:
        return at, b""
    size = data[at + 1]
    return at + 2 + size, data[at + 2 : at + 2 + size]


def _sizes_at(head: bytes, at: int) -> tuple[npt.NDArray[np.int32], int] | None:
    """The table of sizes at `at` and where it ends, or None. It must name the game's start and a frame's events."""
    if len(head) < at + 2 or head[at] != SIZES:
        return None
    size = head[at + 1]
    end = at + 1 + size
    if size % 3 != 1 or size < 4 or len(head) < end:
        return None
    sizes = np.full(256, -1, np.int32)
    for place in range(at + 2, end, 3):
        sizes[head[place]] = int.from_bytes(head[place + 1 : place + 3], "big")
    return (sizes, end) if sizes[GAME_START] >= 0 and (sizes[PRE] >= 0 or sizes[POST] >= 0) else None


def parse_opening(head: bytes, container: Container, path: str, *, more: bool = False) -> Opening | None:
    """The table of sizes and the start of the game. None if `more` bytes may follow and are needed to tell.

    Raises FormatError without a sound table of sizes: no event after it can be found.
    """
    at = container.start
    limit = len(head) if container.length is None else min(len(head), at + container.length)
    found = _sizes_at(head[:limit], at)
    if found is None:
        if more and (limit < at + 2 or (head[at] == SIZES and limit < at + 1 + head[at + 1])):
            return None
        what = head[at:limit][:8].hex(" ") or "nothing"
        raise FormatError(
            f"{path}, offset {at}: no table of event sizes (35 ...) begins the replay, but {what}; "
            "without it no event can be found"
        )
    sizes, end = found
    start = b""
    if limit > end and head[end] == GAME_START:
        start = head[end : min(limit, end + 1 + int(sizes[GAME_START]))]
    if more and (limit == end or (start and len(start) < 1 + int(sizes[GAME_START]))):
        return None
    version = ".".join(str(part) for part in start[1:4]) if len(start) >= 4 else ""
    return Opening(sizes, end, start, version, _settings(start), _match(start))


def _settings(start: bytes) -> dict[str, Any]:
    """Stage, players and rules, without names; what the version does not have is left out."""
    settings: dict[str, Any] = {}
    if len(start) >= 0x15:
        settings["teams"] = bool(start[0x0D])
        settings["stage"] = int.from_bytes(start[0x13:0x15], "big")
    if len(start) >= 0x19:
        settings["timer_s"] = int.from_bytes(start[0x15:0x19], "big")
    players = []
    for port in range(4):
        at = 0x65 + 0x24 * port
        if len(start) < at + 10 or start[at + 1] == 3:
            continue
        kind = {0: "human", 1: "cpu", 2: "demo"}.get(start[at + 1], str(start[at + 1]))
        player = {"player": port, "character": start[at], "type": kind, "stocks": start[at + 2]}
        players.append({**player, "costume": start[at + 3], "team": start[at + 9]})
    settings["players"] = players
    if len(start) >= 0x141:
        settings["seed"] = int.from_bytes(start[0x13D:0x141], "big")
    if len(start) > 0x1A1:
        settings["pal"] = bool(start[0x1A1])
    if len(start) > 0x1A2:
        settings["frozen_stadium"] = bool(start[0x1A2])
    return settings


def _match(start: bytes) -> str:
    """Slippi's own id of the match with the number of the game (3.14 on), else a short digest of the game's start."""
    text = start[0x2BE:0x2F1].split(b"\0")[0]
    if len(start) >= 0x2F9 and text and all(33 <= byte < 127 for byte in text):
        game, tie = struct.unpack_from(">II", start, 0x2F1)
        return f"{text.decode('ascii')}/{game}" + (f".{tie}" if tie else "")
    return hashlib.sha256(start).hexdigest()[:12]


def detect(head: bytes) -> bool:
    """Whether a file that begins with `head` is a Slippi replay."""
    try:
        container = parse_container(head, "")
    except FormatError:
        return False
    found = _sizes_at(head, container.start)
    return found is not None or (container.start > 0 and len(head) <= container.start + 2)


def parse_metadata(data: bytes) -> tuple[dict[str, Any] | None, int, str]:
    """``(metadata, bytes used, problem)`` of what follows the raw element; `problem` is empty if it is whole.

    Bounded: nothing is allocated that `data` does not hold.
    """
    if not data:
        return None, 0, "the file ends behind the raw element, without metadata"
    if data[:1] == b"}":
        return {}, 1, ""
    if not data.startswith(_METADATA):
        return None, 0, f"expected the metadata, found {data[:12].hex(' ')}"
    try:
        at, value = _value(data, len(_METADATA), 0)
    except (ValueError, IndexError, struct.error) as error:
        return None, 0, f"the metadata is damaged: {error}"
    if not isinstance(value, dict):
        return None, 0, f"the metadata is no object but {type(value).__name__}"
    if data[at : at + 1] != b"}":
        return value, at, "the closing } behind the metadata is missing"
    return value, at + 1, ""


def _value(data: bytes, at: int, depth: int, kind: bytes = b"") -> tuple[int, Any]:
    if depth > _DEPTH:
        raise ValueError(f"nested more than {_DEPTH} deep")
    if not kind:
        kind, at = data[at : at + 1], at + 1
    form = _INTEGERS.get(kind)
    if form is not None:
        return at + struct.calcsize(form), struct.unpack_from(form, data, at)[0]
    if kind in b"ZNTF" and kind:
        return at, {b"T": True, b"F": False}.get(kind)
    if kind == b"C":
        return at + 1, chr(data[at])
    if kind in (b"S", b"H"):
        at, size = _value(data, at, depth + 1)
        if not isinstance(size, int) or not 0 <= size <= len(data) - at:
            raise ValueError(f"a text of {size} bytes at {at}, {len(data) - at} are there")
        return at + size, data[at : at + size].decode("utf-8", "replace")
    if kind in (b"[", b"{"):
        return _items(data, at, depth, is_object=kind == b"{")
    raise ValueError(f"no value begins with {kind.hex() or 'nothing'} at {at - 1}")


def _items(data: bytes, at: int, depth: int, *, is_object: bool) -> tuple[int, Any]:
    kind, count = b"", None
    if data[at : at + 1] == b"$":
        kind, at = data[at + 1 : at + 2], at + 2
        if data[at : at + 1] != b"#":
            raise ValueError(f"a typed container without a count at {at}")
    if data[at : at + 1] == b"#":
        at, count = _value(data, at + 1, depth + 1)
        if not isinstance(count, int) or not 0 <= count <= max(_EMPTIES, len(data) - at):
            raise ValueError(f"a container of {count} values at {at}")
    close = b"}" if is_object else b"]"
    values: list[Any] = []
    keys: list[str] = []
    while count is None or len(values) < count:
        if count is None and data[at : at + 1] == close:
            at += 1
            break
        if is_object:
            at, size = _value(data, at, depth + 1)
            if not isinstance(size, int) or not 0 <= size <= len(data) - at:
                raise ValueError(f"a key of {size} bytes at {at}")
            keys.append(data[at : at + size].decode("utf-8", "replace"))
            at += size
        at, value = _value(data, at, depth + 1, kind)
        values.append(value)
    return at, dict(zip(keys, values, strict=True)) if is_object else values


def start_ns(text: object) -> int | None:
    """``startAt`` as ns since 1970, exactly; a time without a zone is UTC. None if it is no time."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    return ns if 0 <= ns < 1 << 62 else None
