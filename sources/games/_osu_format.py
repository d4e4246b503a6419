"""What an osu! replay (.osr) is made of: a header of little-endian numbers and texts, then frames as LZMA-packed text.

Spec: osu.ppy.sh/wiki, "osr (file format)". A text is 00, or 0b and its length in ULEB128 before UTF-8.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from ...pipeline.errors import FormatError
from ...pipeline.schema import event_schema

__all__ = ["HEAD", "MODES", "Header", "detect", "input_schema", "mod_names", "parse_header", "trailing_problem"]

#: Bytes of a header at most: the life bar is the only long text in it.
HEAD = 1 << 20
MODES = ("osu", "taiko", "catch", "mania")
_TICKS_1970 = 621_355_968_000_000_000
_LAZER = 30_000_000
_TARGET = 1 << 23
_MODS = (
    *("NoFail", "Easy", "TouchDevice", "Hidden", "HardRock", "SuddenDeath", "DoubleTime", "Relax", "HalfTime"),
    *("Nightcore", "Flashlight", "Autoplay", "SpunOut", "Autopilot", "Perfect", "Key4", "Key5", "Key6", "Key7", "Key8"),
    *("FadeIn", "Random", "Cinema", "Target", "Key9", "KeyCoop", "Key1", "Key3", "Key2", "ScoreV2", "Mirror"),
)


@dataclass(frozen=True, slots=True)
class Header:
    """A replay's header, without the player's name. `start_ns` None: its ticks are no time. Frames' bytes are at
    `start`, `length` of them."""

    mode: str
    version: int
    beatmap: str
    counts: Mapping[str, int]
    score: int
    max_combo: int
    perfect: bool
    mods: int
    start_ns: int | None
    start: int
    length: int
    match: str


def input_schema(source: str) -> pa.Schema:
    """``game.input`` of osu!: one row per frame; FORMATS section 6, item 12."""
    fields = [
        pa.field("match_id", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("keys", pa.uint32(), nullable=False),
    ]
    return event_schema(fields, source=source, format="osr", units="x, y px of the 512x384 playfield")


def parse_header(head: bytes, path: str) -> Header:
    """The header of a file that begins with `head`. Raises FormatError with the offset if it is none."""
    place = 0
    try:
        mode, version = struct.unpack_from("<Bi", head)
        if mode > 3 or not _version(version):
            raise ValueError(f"mode {mode} of version {version}")
        place = 5
        beatmap, place = _text(head, place)
        _, place = _text(head, place)
        digest, place = _text(head, place)
        numbers = struct.unpack_from("<6Hih?i", head, place)
        place += struct.calcsize("<6Hih?i")
        _, place = _text(head, place)
        ticks, length = struct.unpack_from("<qi", head, place)
    except (ValueError, IndexError, struct.error) as error:
        raise FormatError(f"{path} is not an osu! replay: offset {place} holds no header of one ({error})") from None
    start = (ticks - _TICKS_1970) * 100
    names = ("300", "100", "50", "geki", "katu", "miss")
    return Header(
        mode=MODES[mode],
        version=version,
        beatmap=beatmap.decode("ascii", "replace"),
        counts=dict(zip(names, numbers[:6], strict=True)),
        score=numbers[6],
        max_combo=numbers[7],
        perfect=numbers[8],
        mods=numbers[9] & 0xFFFFFFFF,
        start_ns=start if 0 <= start < 1 << 62 else None,
        start=place + 12,
        length=length,
        match=hashlib.sha256(beatmap + b"/" + digest).hexdigest()[:12],
    )


def _version(version: int) -> bool:
    return 20_070_000 <= version < 21_000_000 or _LAZER <= version < _LAZER + 1_000_000


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    if data[at] == 0:
        return b"", at + 1
    if data[at] != 0x0B:
        raise ValueError(f"0x{data[at]:02x} at {at} begins no text")
    size = shift = 0
    at += 1
    while True:
        byte = data[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
        if shift > 28:
            raise ValueError(f"a text at {at} of more than 2**28 bytes")
    if size > len(data) - at:
        raise ValueError(f"a text of {size} bytes at {at}, {len(data) - at} are there")
    return data[at : at + size], at + size


def detect(head: bytes) -> bool:
    """Whether `head` begins an osu! replay: a known mode, a plausible version and the MD5 of a beatmap."""
    if len(head) < 40 or head[0] > 3 or not _version(int.from_bytes(head[1:5], "little", signed=True)):
        return False
    digest = head[7:39]
    return (
        head[5:7] == b"\x0b\x20" and all(byte in b"0123456789abcdefABCDEF" for byte in digest) and head[39] in (0, 0x0B)
    )


def mod_names(mods: int) -> list[str]:
    """Names of the mods that are set, lowest bit first."""
    return [name for bit, name in enumerate(_MODS) if mods >> bit & 1]


def trailing_problem(header: Header, behind: bytes) -> str | None:
    """What is wrong with the bytes behind the frames: a score id, what a mod adds, and what lazer appends."""
    rest = len(behind)
    usual = {0, 4, 8, *((16,) if header.mods & _TARGET else ())}
    if header.version > _LAZER and rest >= 12:
        size = int.from_bytes(behind[8:12], "little", signed=True)
        if size >= 0 and 12 + size == rest:
            return None
    if rest in usual:
        return None
    return f"{rest} bytes follow the frames; a score id has 8"
