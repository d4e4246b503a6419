"""What an ITCH 5.0 file is made of: message types, their lengths and fields, and how to tell one from another file.

A file is a run of messages, each behind two bytes: its length, big-endian, or ``00 00`` in files that some tools write,
where the length follows from the type alone. Every message starts with type (1), stock locate (2), tracking number (2)
and ns since midnight in New York (6). Spec: Nasdaq TotalView-ITCH 5.0, section 1; layout of files: section 3 of the
Binary File specification.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import event_schema

__all__ = [
    "FIELDS",
    "LENGTHS",
    "NAMES",
    "check_format",
    "detect",
    "found",
    "l3_schema",
    "layout_tables",
    "length_table",
    "midnight_ns",
    "session_date",
    "type_label",
]

_TYPES: dict[str, tuple[int, str]] = {
    "S": (12, "system event"),
    "R": (39, "stock directory"),
    "H": (25, "trading action"),
    "Y": (20, "short sale restriction"),
    "L": (26, "market participant position"),
    "V": (35, "circuit breaker decline levels"),
    "W": (12, "circuit breaker status"),
    "K": (28, "IPO quoting period"),
    "J": (35, "auction collar"),
    "h": (21, "operational halt"),
    "A": (36, "add order"),
    "F": (40, "add order with attribution"),
    "E": (31, "order executed"),
    "C": (36, "order executed with price"),
    "X": (23, "order cancel"),
    "D": (19, "order delete"),
    "U": (35, "order replace"),
    "P": (44, "trade, non-cross"),
    "Q": (40, "cross trade"),
    "B": (19, "broken trade"),
    "I": (50, "net order imbalance"),
    "N": (20, "retail price improvement"),
    "O": (48, "direct listing price discovery"),
}
#: Bytes of each message type, without the two in front, and what it is called.
LENGTHS: dict[str, int] = {letter: length for letter, (length, _) in _TYPES.items()}
NAMES: dict[str, str] = {letter: name for letter, (_, name) in _TYPES.items()}
_BY_CODE = {ord(letter): length for letter, length in LENGTHS.items()}

#: Where the fields of each type in ``market.l3`` lie. `order` and `new_order` (8 bytes), `size` and `price` (4), `match`
#: (8), `side` and `printable` (1); `flags` are those that every message of the type has.
FIELDS: dict[str, dict[str, int]] = {
    "A": {"order": 11, "side": 19, "size": 20, "price": 32},
    "F": {"order": 11, "side": 19, "size": 20, "price": 32, "flags": 2},
    "E": {"order": 11, "size": 19, "match": 23, "flags": 1},
    "C": {"order": 11, "size": 19, "match": 23, "printable": 31, "price": 32},
    "X": {"order": 11, "size": 19},
    "D": {"order": 11},
    "U": {"order": 11, "new_order": 19, "size": 27, "price": 31},
    "P": {"order": 11, "side": 19, "size": 20, "price": 32, "match": 36, "flags": 1},
    "Q": {
        "size": 15,
        "price": 27,
        "match": 31,
        "flags": 1,
    },  # 8 bytes of shares at 11, of which the upper 4 are checked
    "B": {"match": 11},
}

_MAGIC = {
    b"\x89MCAP": "an MCAP recording",
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a zstd stream",
    b"BZh": "a bzip2 stream",
    b"\xfd7zXZ": "an xz stream",
    b"\x1f\x8b": "a gzip stream",
    b"SQLite format 3": "an SQLite database",
    b"DBN": "a Databento DBN file",
    b"\xd4\xc3\xb2\xa1": "a pcap capture",
    b"\x4d\x3c\xb2\xa1": "a pcap capture",
    b"\x0a\x0d\x0d\x0a": "a pcapng capture",
    b"ARROW1": "an Arrow file",
    b"{": "JSON",
}


def length_table() -> npt.NDArray[np.int64]:
    """Message length by type code, 0 for a code that is no known type."""
    table = np.zeros(256, np.int64)
    for letter, length in LENGTHS.items():
        table[ord(letter)] = length
    return table


def type_label(code: int) -> str:
    """The letter of a type, or its code in hex if it is not a letter or digit."""
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else f"0x{code:02x}"


def l3_schema(source: str) -> pa.Schema:
    """``market.l3``: one row per order or trade message; spec section 6, item 1."""
    return event_schema(
        [
            pa.field("locate", pa.uint16(), nullable=False),
            pa.field("symbol", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
            pa.field("msg_type", pa.uint8(), nullable=False),
            pa.field("side", pa.int8(), nullable=False),
            pa.field("order_id", pa.uint64(), nullable=False),
            pa.field("new_order_id", pa.uint64(), nullable=False),
            pa.field("price", pa.int64(), nullable=False),
            pa.field("size", pa.uint32(), nullable=False),
            pa.field("match_id", pa.uint64(), nullable=False),
            pa.field("flags", pa.uint8(), nullable=False),
        ],
        source=source,
        format="itch50",
        clock="exchange",
        units="price 1e-9 USD, size shares",
    )


def detect(head: bytes, *, whole: bool = False) -> bool | None:
    """True for length-prefixed ITCH 5.0, False for ``00 00`` before every message, None for anything else.

    `head` is the start of the file, `whole` says that it is all of it. A damaged start is tolerated if whole messages
    follow within `head`.
    """
    if whole and head == b"\x00\x00":
        return True
    for prefixed in (True, False):
        count, complete = _consistent(head, 0, prefixed)
        if count >= (1 if prefixed else 2) or (count and complete):
            return prefixed
    for start in range(1, max(1, len(head) - 64)):
        if head[start] == 0:
            for prefixed in (True, False):
                if _consistent(head, start, prefixed)[0] >= 4 and _in_order(head, start):
                    return prefixed
    return None


def _consistent(head: bytes, position: int, prefixed: bool) -> tuple[int, bool]:
    """How many messages (up to 4) in a row from `position` have a known type and its length, and whether all did."""
    count = 0
    while count < 4 and position + 3 <= len(head):
        length = int.from_bytes(head[position : position + 2], "big")
        wanted = _BY_CODE.get(head[position + 2], -1)
        if length != (wanted if prefixed else 0) or wanted < 0:
            return count, False
        position += 2 + wanted
        count += 1
    return count, True


def _in_order(head: bytes, position: int) -> bool:
    """Whether four messages from `position` on differ, each from the one before, and their times are of a day and do not go
    back: pictures and other files with patterns of zeros seldom have that."""
    last, before = 1, b""
    for _ in range(4):
        time = int.from_bytes(head[position + 7 : position + 13], "big")
        if not last <= time < 86_400 * 10**9:
            return False
        end = position + 2 + _BY_CODE[head[position + 2]]
        if head[position:end] == before:
            return False
        last, before, position = time, head[position:end], end
    return True


def found(head: bytes) -> str:
    """What `head` looks like, for an error message."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return f"{what} ({head[:12].hex(' ')})"
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:64]):
        return f"text ({head[:24].decode('ascii')!r})"
    return f"the bytes {head[:12].hex(' ') or 'nothing'}"


def session_date(given: str | date | None, file_name: str) -> date:
    """The session's date from `given` or from the usual forms of `file_name`.

    ``01302019.NASDAQ_ITCH50``, ``S081321-v50.txt.gz``, ``20190130.BX_ITCH_50``, ``ex20101224.TEST_ITCH_50``,
    ``2019-01-30.itch``. Raises GraphError if there is none, because ITCH times hold no date.
    """
    if isinstance(given, datetime):
        return given.date()
    if isinstance(given, date):
        return given
    if given is not None:
        try:
            return date.fromisoformat(given)
        except ValueError:
            raise GraphError(f"date={given!r} is no date; write for example date='2019-01-30'") from None
    for year, month, day in re.findall(r"(?<!\d)(\d{4})[-_](\d{2})[-_](\d{2})(?!\d)", file_name):
        if (day_found := _date(year, month, day)) is not None:
            return day_found
    for digits in re.findall(r"(?<!\d)\d{8}(?!\d)", file_name):
        for year, month, day in ((digits[:4], digits[4:6], digits[6:]), (digits[4:], digits[:2], digits[2:4])):
            if (day_found := _date(year, month, day)) is not None:
                return day_found
    for digits in re.findall(r"(?<![A-Za-z0-9])S(\d{6})(?!\d)|(?<!\d)(\d{6})-v\d\d", file_name):
        text = digits[0] or digits[1]
        if (day_found := _date("20" + text[4:], text[:2], text[2:4])) is not None:
            return day_found
    raise GraphError(
        f"no session date in the file name {file_name!r}, and ITCH messages hold only the time since midnight: "
        "give it as date='2019-01-30' (on the command line --date 2019-01-30)"
    )


def _date(year: str, month: str, day: str) -> date | None:
    try:
        value = date(int(year), int(month), int(day))
    except ValueError:
        return None
    return value if 1990 <= value.year < 2100 else None


def midnight_ns(day: date, timezone: str) -> int:
    """Midnight of `day` in `timezone`, ns since the Unix epoch."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise GraphError(f"no time zone {timezone!r} on this machine ({error}); pip install tzdata") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**9


def check_format(head: bytes, *, compression: str, whole: bool, path: str) -> bool:
    """Whether the content that begins with `head` is prefixed. Raises FormatError, saying what was found, if it is not
    ITCH 5.0 or empty. `whole` says that `head` is all of it."""
    packed = compression != "none"
    if not head:
        what = f"is an empty {compression} stream" if packed else "is empty (0 bytes)"
        raise FormatError(f"{path} {what}: no ITCH messages to read")
    prefixed = detect(head, whole=whole)
    if prefixed is None:
        inside = f" inside {compression}" if packed else ""
        raise FormatError(
            f"{path} is not a NASDAQ ITCH 5.0 file: offset 0 holds{inside} {found(head)}; expected a message such as "
            "00 0c 53 (length 12, type S), or 00 00 53 where lengths are left out. ITCH 4.1 and captures of the network "
            "feed are other formats"
        )
    return prefixed


def layout_tables() -> npt.NDArray[np.int64]:
    """FIELDS as numbers for the decoder: a row of 16 per type code, offsets and masks (0 where a field is absent)."""
    table = np.zeros((256, 16), np.int64)
    for column in (2, 4, 6, 8, 10):
        table[:, column] = 11
    for letter, at in FIELDS.items():
        row: Any = table[ord(letter)]
        row[0] = 1
        row[1] = -1 if "order" in at else 0
        row[2:4] = at.get("side", 11), -1 if "side" in at else 0
        row[4:6] = at.get("size", 11), 0xFFFFFFFF if "size" in at else 0
        row[6:8] = at.get("price", 11), 0xFFFFFFFF if "price" in at else 0
        row[8:10] = at.get("match", 11), -1 if "match" in at else 0
        row[10:12] = at.get("new_order", 11), -1 if "new_order" in at else 0
        row[12:14] = at.get("flags", 0), 1 if "printable" in at else 0
        row[14] = 0xFFFFFFFF if letter == "Q" else 0
        row[15] = 1 if letter in "AF" else 0
    return table
