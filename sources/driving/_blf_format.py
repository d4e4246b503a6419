"""What stands in a BLF file: its head, the head of each object, and what objects are called.

A file is a head (``LOGG``) and objects (``LOBJ``). Nearly all of them are containers, which hold, plain or deflated, pieces
of one continuous stream of objects: one may begin in a container and end in another. The layouts are those that Vector's
tools and python-can write; there is no public specification.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ._dataset_times import civil_ns

__all__ = [
    "CONTAINER",
    "HEADER",
    "MOST_CONTAINER",
    "MOST_OBJECT",
    "PADDING",
    "FileHead",
    "is_blf",
    "kind_name",
    "next_object",
    "object_at",
    "read_head",
]

#: The type of a container, and the bytes of an object's base head, with which each begins, and of a container's.
CONTAINER = 10
HEADER = 16
#: Between two objects stand up to four bytes that belong to neither: loggers pad by the size modulo four, to it, or not.
PADDING = 4
#: Larger containers (as stored and unpacked), and larger objects inside, are taken for damage.
MOST_CONTAINER = 64 << 20
MOST_OBJECT = 4 << 20

_HEAD = struct.Struct("<4sI4sBBBBQQII8H8H")
_OBJECT = struct.Struct("<4sHHII")
_KINDS = {
    3: "CAN overload frame",
    4: "CAN driver statistics",
    5: "application trigger",
    6: "environment integer",
    7: "environment double",
    8: "environment string",
    9: "environment data",
    31: "CAN driver error",
    44: "CAN driver synchronisation",
    46: "GPS event",
    51: "real-time clock",
    65: "text",
    72: "system variable",
    74: "CAN driver error",
    90: "serial event",
    91: "driver overrun",
    92: "comment",
    96: "marker",
    115: "restore points",
    118: "test structure",
    119: "diagnostic request",
    124: "function bus",
    125: "data lost, begin",
    126: "data lost, end",
    127: "water mark",
    128: "trigger condition",
    129: "CAN setting changed",
    130: "distributed object",
    131: "attribute",
}
_FAMILIES = (
    ("LIN", (*range(11, 22), 42, 43, 54, *range(57, 65), 75, 87, 88, 89, 105)),
    ("MOST", (*range(22, 26), *range(32, 40), *range(67, 71), *range(76, 86), 95)),
    ("FlexRay", (29, 30, 40, 41, 45, 47, 48, 49, 50, 66)),
    ("Ethernet", (71, 102, 103, 114, *range(120, 124))),
    ("WLAN", (93, 94)),
    ("J1708", (55, 56)),
    ("AFDX", (97, 98, 106, 107, 109)),
    ("ARINC 429", (110, 111, 112, 113)),
    ("K-Line", (99,)),
)
_SIGN = re.compile(rb"LOBJ")


@dataclass(frozen=True, slots=True)
class FileHead:
    """Where objects begin, and when the measurement began: year, month, day, hour, minute, second, ms; None if not told."""

    size: int
    start: tuple[int, ...] | None

    def start_ns(self, at: ZoneInfo) -> int | None:
        """The start in ns, as a time in the zone `at`; None if there is none, or one that no calendar has."""
        if self.start is None:
            return None
        year, month, day, hour, minute, second, ms = self.start
        if ms > 999:
            return None
        try:
            text = f"{year:04d}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}.{ms:03d}"
            return civil_ns(text, at)
        except (ValueError, OverflowError):
            return None


def read_head(head: bytes) -> FileHead | None:
    """The head of a file that begins with `head`; None if it is cut. A file may also begin with a container at once."""
    if object_at(head, 0) is not None:
        return FileHead(0, None)
    if len(head) < _HEAD.size:
        return None
    fields = _HEAD.unpack_from(head)
    size, (year, month, _, *rest) = fields[1], fields[11:19]
    start = (year, month, *rest) if year else None
    if not _HEAD.size <= size <= len(head) or (size < len(head) and head[size : size + 4] != b"LOBJ"):
        first = next_object(head, _HEAD.size)
        size = first if first is not None else _HEAD.size
    return FileHead(size, start)


def object_at(data: bytes, at: int) -> tuple[int, int] | None:
    """Size and type of the object whose head stands at `at`, if such a head can be right; the type is checked by no one."""
    if len(data) - at < HEADER:
        return None
    sign, head, version, size, kind = _OBJECT.unpack_from(data, at)
    most = MOST_CONTAINER if kind == CONTAINER else MOST_OBJECT
    if sign != b"LOBJ" or head < HEADER or not 1 <= version <= 3 or not head <= size <= most:
        return None
    return (size, kind) if kind != CONTAINER or size >= 2 * HEADER else None


def next_object(data: bytes, at: int) -> int | None:
    """Where the first head from `at` on stands that can be right; None if there is none."""
    for found in _SIGN.finditer(data, at):
        if object_at(data, found.start()) is not None:
            return found.start()
    return None


def kind_name(kind: int) -> str:
    """What objects of a type are called."""
    name = _KINDS.get(kind) or next((family for family, kinds in _FAMILIES if kind in kinds), "unknown")
    return f"{name} (object type {kind})" if kind < 255 else "unknown (object type 255 or more)"


def is_blf(head: bytes) -> bool:
    """Whether a file that begins with `head` is a BLF log: ``LOGG`` and the size of a head, or a container at once."""
    if head[:4] == b"LOGG":
        return len(head) < 8 or _HEAD.size <= int.from_bytes(head[4:8], "little") < 1 << 16
    found = object_at(head, 0)
    return found is not None and found[1] == CONTAINER
