"""Vector CAN logs in text (.asc, of CANoe, CANalyzer and python-can), plain or packed, as ``can.frame`` rows.

::

    date Wed Apr 16 09:21:13.159 am 2014
    base hex  timestamps absolute
    internal events logged
    Begin Triggerblock Wed Apr 16 09:21:13.159 am 2014
       0.000000 Start of measurement
       0.015991 1  123             Rx   d 8 01 02 03 04 05 06 07 08  Length = 237910 BitCount = 123
       0.018501 CANFD   1 Rx   18FF1234x  Name   1 0 9 12 01 02 03 04 05 06 07 08 09 0A 0B 0C  130000  130  303000
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.schema import event_schema
from ...pipeline.source import Decoded, Position, SourceReader, Split
from ..storage.stored import PathLike, location
from ..storage.unpack import head_of, open_feed
from ._can_dated_log import DatedLog
from ._can_tables import can_fields
from ._dataset_times import civil_ns, zone

if TYPE_CHECKING:
    from ._can_lines import CanLogReader

__all__ = ["Asc", "inspect_asc", "is_asc", "open_asc"]

_HEAD = 1 << 16
_BASE = re.compile(rb"^\s*base\s+(hex|dec)\b(?:\s+timestamps\s+(absolute|relative))?", re.I | re.M)
_DATE = re.compile(rb"^\s*date\s+(.*?)\s*$", re.I | re.M)
_BLOCK = re.compile(rb"^\s*begin\s+triggerblock\s+(.*?)\s*$(?:\s*0+\.0+\s+(start of measurement))?", re.I | re.M)
_WHEN = re.compile(
    r"(?:\S+\s+)?([^\W\d]{3})\S*\s+(\d{1,2})\s+(\d{1,2}):(\d\d):(\d\d)(?:[.:](\d{1,9}))?(?:\s+([ap]m))?"
    r"(?:\s+(UTC|GMT))?\s+(\d{4})",
    re.I,
)
_MONTHS = {
    name: number
    for number, names in enumerate(
        ["jan", "feb", "mar mär mrz", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"],
        start=1,
    )
    for name in names.split()
}


@dataclass(frozen=True)
class Header:
    """What stands in front of the events: start in ns (None without a date), whether numbers are decimal, whether times
    are since the event before."""

    start: int | None
    decimal: bool
    relative: bool


@dataclass(frozen=True)
class Asc(DatedLog):
    """An .asc log as ``can.frame``: bus, can_id, ext, fd, len, data behind ts_event, ts_recv and seq.

    ``bus`` is the channel as written (from 1). ``can_id`` has bit 30 set for a remote and bit 29 for an error frame.
    ``ts_event`` is the start of the measurement, in `timezone`, plus the line's time, exactly: the date of the first trigger
    block where the measurement starts with it, else that of the header. `start` (``2014-04-16 09:21:13.159``) replaces
    both; without any, times count from 1970 and ``penstock.clock`` is ``boot+offset``. Relative times are added up.
    `seq` numbers all lines that are not blank; ``data`` has 64 bytes if `fd`, else 8; None looks for CAN FD frames in the
    first 64 KiB.

    Header lines, comments and events that are no frames are counted as dropped. A frame that cannot be read and a line
    that is nothing of all this is a bad record with its offset in the unpacked content (operation ``asc.decode``).
    Raises GraphError for wrong arguments; `open` raises FormatError for a file of another format, OSError.
    """

    format: ClassVar[str] = "asc"

    @property
    def schema(self) -> pa.Schema:
        """See above. Reads the first 64 KiB; raises FormatError, OSError."""
        head = _head(self.path)
        return self._schema(head, self._header(head))

    def _schema(self, head: bytes, header: Header) -> pa.Schema:
        fields = can_fields(b"CANFD" in head if self.fd is None else self.fd)
        clock = "utc" if header.start is not None else "boot+offset"
        return event_schema(fields, source=self.name, format=self.format, clock=clock, table="can.frame")

    def _header(self, head: bytes) -> Header:
        header = read_header(head, self.timezone)
        if self.start is None:
            return header
        return Header(civil_ns(self.start, zone(self.timezone)), header.decimal, header.relative)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return self._reader(context, position)

    def _reader(self, context: Context, position: Position | None) -> CanLogReader:
        from ._can_grammars import AscGrammar
        from ._can_lines import CanLogReader

        head = _head(self.path)
        header = self._header(head)
        return CanLogReader(
            open_feed(self.path),
            AscGrammar(header.start or 0, decimal=header.decimal, relative=header.relative),
            path=str(self.path),
            schema=self._schema(head, header),
            context=context,
            position=position,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again. None in a log of relative times: a line alone does not tell when it was."""
        from ._can_grammars import AscGrammar
        from ._can_lines import decode_line

        head = _head(self.path)
        header = self._header(head)
        if header.relative:
            return None
        grammar = AscGrammar(header.start or 0, decimal=header.decimal, relative=False)
        return decode_line(record, grammar, self._schema(head, header))

    @property
    def block_bound(self) -> int:
        return 8 << 20


def read_header(head: bytes, timezone: str) -> Header:
    """The header of a log that begins with `head`."""
    base = _BASE.search(head)
    decimal = base is not None and base[1].lower() == b"dec"
    relative = base is not None and base[2] is not None and base[2].lower() == b"relative"
    date, block = _DATE.search(head), _BLOCK.search(head)
    told = [found[1] for found in (block, date) if found is not None]
    if block is not None and block[2] is None and date is not None:
        told.reverse()
    start = next((ns for text in told if (ns := _start_ns(text, timezone)) is not None), None)
    return Header(start, decimal, relative)


def _start_ns(text: bytes, timezone: str) -> int | None:
    """``Wed Apr 16 09:21:13.159 am 2014``, or with 24 hours, in German or said to be UTC; else None."""
    try:
        found = _WHEN.fullmatch(text.decode("utf-8"))
    except UnicodeDecodeError:
        found = _WHEN.fullmatch(text.decode("cp1252", "replace"))
    month = _MONTHS.get(found[1].lower()) if found is not None else None
    if found is None or month is None:
        return None
    hour = int(found[3])
    if found[7]:
        hour = hour % 12 + (12 if found[7].lower() == "pm" else 0)
    part = f".{found[6]}" if found[6] else ""
    try:
        civil = f"{found[9]}-{month:02d}-{int(found[2]):02d} {hour:02d}:{found[4]}:{found[5]}{part}"
        return civil_ns(civil, zone("UTC" if found[8] else timezone))
    except (ValueError, OverflowError):
        return None


def is_asc(head: bytes) -> bool:
    """Whether a file that begins with `head` is an .asc log: a line ``base hex`` or ``base dec`` among its first five."""
    lines = [line for line in head[:4096].split(b"\n") if line.strip()][:5]
    known = re.compile(rb"\s*(date\s|base\s+(hex|dec)\b|//|(no\s+)?internal\s+events\s+logged)", re.I)
    for line in lines:
        if _BASE.match(line):
            return True
        if not known.match(line):
            return False
    return False


def open_asc(path: PathLike, **options: Any) -> Asc:
    """The frames of an .asc log; `options` are those of `Asc`."""
    return Asc(path, **options)


def inspect_asc(path: PathLike) -> dict[str, Any]:
    """What an .asc log holds, found by reading it. Keys: ``format``, ``compression``, ``messages`` (lines), ``topics`` (by
    channel: type, messages, schema), ``other`` (lines that are no frames, by reason), ``bad``, ``time``, ``schema``,
    ``base``, ``timestamps``, ``problem``. Raises FormatError, OSError."""
    from ._can_survey import contents

    spec = Asc(path)
    header = read_header(_head(path), "UTC")
    found = contents(
        spec._reader(Context("inspect"), None),
        path,
        spec.schema,
        name="Vector ASC",
        bus="channel",
        dated=header.start is not None,
    )
    base, timestamps = "dec" if header.decimal else "hex", "relative" if header.relative else "absolute"
    return {**found, "base": base, "timestamps": timestamps}


def _head(path: PathLike) -> bytes:
    head, _ = head_of(path, _HEAD)
    if not head.strip():
        raise FormatError(f"{location(path)} is empty: it holds no CAN frames")
    if not is_asc(head):
        first = head.lstrip()[:60].split(b"\n", 1)[0]
        raise FormatError(f"{location(path)} is no .asc log: it begins with {first!r}")
    return head
