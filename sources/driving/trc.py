"""CAN traces of PEAK (.trc, of PCAN-View, PCAN-Explorer and python-can), versions 1.0 to 2.1, as ``can.frame`` rows.

::

    ;$FILEVERSION=2.1
    ;$STARTTIME=41766.4648963872
    ;$COLUMNS=N,O,T,B,I,d,R,L,D
          1      1059.900 DT 1      0300 Rx -  7    00 00 00 00 04 00 00
          2      1334.416 FD 1      0500 Tx -  9    01 02 03 04 05 06 07 08 09 0A 0B 0C
          3      1334.522 ER 1         - Rx -  5    04 00 02 00 00
          4      1336.543 RR 1      0100 Rx -  3
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
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

__all__ = ["Trc", "inspect_trc", "is_trc", "open_trc"]

_HEAD = 1 << 16
#: The columns of versions that do not tell them.
_COLUMNS = {"1.0": "NOILD", "1.1": "NOTILD", "1.2": "NOBTILD", "1.3": "NOBTIRLD"}
_SETTING = re.compile(rb"^[ \t]*;\$(FILEVERSION|STARTTIME|COLUMNS)=[ \t]*([^\r\n]*?)[ \t;]*\r?$", re.M)
_RULER = re.compile(rb"^[ \t]*;-{2,}\+-", re.M)
_FIRST = re.compile(rb"[ \t]*\d+\)[ \t]*\d+[ \t]+[0-9A-Fa-f]{4,8}[ \t]+\d[ \t\r]")
_LIN = re.compile(rb"PLIN-Net|Checksum Type")
_TOLD = re.compile(
    rb"^[ \t]*;[ \t]*Start time:[ \t]*(?:(\d{1,2})[.-](\d{1,2})[.-](\d{4})|(\d{4})-(\d\d)-(\d\d))[ T](\d\d:\d\d:\d\d)"
    rb"(?:\.(\d{1,9}))?(?:\.(\d{1,3}))?(\+00:00|Z)?",
    re.M,
)
#: Day 0 of $STARTTIME, and the first that is taken for a date.
_DAY_0, _FIRST_DAY = datetime(1899, 12, 30), 366


@dataclass(frozen=True)
class Header:
    """Version, the letters of the columns, the start in ns (None if it is not told)."""

    version: str
    columns: str
    start: int | None


@dataclass(frozen=True)
class Trc(DatedLog):
    """A trace of PEAK as ``can.frame``: bus, can_id, ext, fd, len, data behind ts_event, ts_recv and seq.

    ``bus`` is that of the line, 1 where the version has none. ``can_id`` has bit 30 set for a remote frame; an error frame
    has bit 29 and nothing else. Identifiers of more than four digits have 29 bits. ``ts_event`` is ``$STARTTIME``, a day
    count of local time read to the microsecond, or in version 1.0 the start time in the comments, in `timezone`, plus the
    line's milliseconds, exactly. `start` (``2014-04-16 09:21:13.159``) replaces it; without any, times count from 1970 and
    ``penstock.clock`` is ``boot+offset``. ``ts_recv`` equals ``ts_event``; `seq` numbers all lines that are not blank.
    ``data`` has 64 bytes if `fd`, else 8; None looks for CAN FD frames in the first 64 KiB.

    Comments and events that are no frames are counted as dropped. A line that cannot be read is a bad record with its
    offset in the unpacked content (operation ``trc.decode``). Raises GraphError for wrong arguments; `open` raises
    FormatError for a file of another format, an unknown version or columns without time, identifier, length or data;
    OSError.
    """

    format: ClassVar[str] = "trc"

    @property
    def schema(self) -> pa.Schema:
        """See above. Reads the first 64 KiB; raises FormatError, OSError."""
        return self._examined()[0]

    def _examined(self) -> tuple[pa.Schema, int, str]:
        """The schema, the start in ns, the letters of the columns."""
        head = _head(self.path)
        header = _checked(read_header(head, self.timezone), self.path)
        start = header.start if self.start is None else civil_ns(self.start, zone(self.timezone))
        fields = can_fields(_holds_fd(head, header.columns) if self.fd is None else self.fd)
        clock = "utc" if start is not None else "boot+offset"
        schema = event_schema(fields, source=self.name, format=self.format, clock=clock, table="can.frame")
        return schema, start or 0, header.columns

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return self._reader(context, position)

    def _reader(self, context: Context, position: Position | None) -> CanLogReader:
        from ._can_grammars import TrcGrammar
        from ._can_lines import CanLogReader

        schema, start, columns = self._examined()
        return CanLogReader(
            open_feed(self.path),
            TrcGrammar(start, columns),
            path=str(self.path),
            schema=schema,
            context=context,
            position=position,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again."""
        from ._can_grammars import TrcGrammar
        from ._can_lines import decode_line

        schema, start, columns = self._examined()
        return decode_line(record, TrcGrammar(start, columns), schema)

    @property
    def block_bound(self) -> int:
        return 8 << 20


def read_header(head: bytes, timezone: str) -> Header:
    """The header of a trace that begins with `head`."""
    comments = _comments(head)
    told = {found[1].decode(): found[2].decode("latin-1") for found in _SETTING.finditer(comments)}
    version = told.get("FILEVERSION", "1.0")
    columns = _COLUMNS.get(version) or re.sub(r"[, \t]", "", told.get("COLUMNS", ""))
    return Header(version, columns, _start_ns(told.get("STARTTIME", ""), comments, timezone))


def _checked(header: Header, path: PathLike) -> Header:
    if not header.columns:
        known = ", ".join(_COLUMNS)
        what = f"is of version {header.version[:20]!r} and has no $COLUMNS"
        raise FormatError(f"{location(path)} {what}; known without are {known}")
    if not {"O", "I", "D"} <= set(header.columns) or not {"l", "L"} & set(header.columns):
        raise FormatError(
            f"{location(path)} has the columns {header.columns[:40]!r}; a trace needs O (time), I (identifier), "
            "l or L (length) and D (data)"
        )
    return header


def _comments(head: bytes) -> bytes:
    """The lines before the first that is neither blank nor a comment."""
    found = re.match(rb"(?:[ \t\r]*(?:;[^\n]*)?\n)*(?:[ \t]*;[^\n]*\Z)?", head)
    return found[0] if found is not None else b""


def _start_ns(days: str, comments: bytes, timezone: str) -> int | None:
    text = _TOLD.search(comments)
    at = zone("UTC" if text is not None and text[10] else timezone)
    number = re.fullmatch(r"(\d{1,6})(?:[.,](\d{1,20}))?", days)
    try:
        if number is not None and int(number[1]) >= _FIRST_DAY:
            part = number[2] or "0"  # the double that it was holds no more than microseconds
            us = (int(part) * 86_400_000_000 + 10 ** len(part) // 2) // 10 ** len(part)
            when = _DAY_0 + timedelta(days=int(number[1]), microseconds=us)
            return civil_ns(f"{when:%Y-%m-%d %H:%M:%S.%f}", at)
        if text is not None:
            day, month, year, *iso, time, part, more, _ = [(group or b"").decode() for group in text.groups()]
            date = f"{year}-{month:0>2}-{day:0>2}" if year else "-".join(iso)
            return civil_ns(f"{date} {time}.{part or '0'}{more}", at)
    except (ValueError, OverflowError):
        pass
    return None


def is_trc(head: bytes) -> bool:
    """Whether a file that begins with `head` is a CAN trace of PEAK: by ``;$FILEVERSION=`` or, in version 1.0, the ruler
    above its columns and a first line that fits, or the name of PEAK's net. Its traces of LIN are none."""
    if head.lstrip()[:1] != b";":
        return False
    comments = _comments(head)
    if _LIN.search(comments) is not None:
        return False
    if comments.lstrip().startswith(b";$FILEVERSION="):
        return True
    lines = _FIRST.match(head, len(comments)) is not None or b"PCAN-Net" in comments
    return lines and _RULER.search(comments) is not None


def open_trc(path: PathLike, **options: Any) -> Trc:
    """The frames of a trace of PEAK; `options` are those of `Trc`."""
    return Trc(path, **options)


def inspect_trc(path: PathLike) -> dict[str, Any]:
    """What a trace holds, found by reading it. Keys: ``format``, ``version``, ``compression``, ``messages`` (lines),
    ``topics`` (by bus: type, messages, schema), ``other`` (lines that are no frames, by reason), ``bad``, ``time``,
    ``schema``, ``problem``. Raises FormatError, OSError."""
    from ._can_survey import contents

    spec = Trc(path)
    header = read_header(_head(path), "UTC")
    found = contents(
        spec._reader(Context("inspect"), None),
        path,
        spec.schema,
        name="PEAK TRC",
        bus="bus",
        dated=header.start is not None,
    )
    return {**found, "version": header.version}


def _head(path: PathLike) -> bytes:
    head, _ = head_of(path, _HEAD)
    if not head.strip():
        raise FormatError(f"{location(path)} is empty: it holds no CAN frames")
    if not is_trc(head):
        first = head.lstrip()[:60].split(b"\n", 1)[0]
        raise FormatError(f"{location(path)} is no CAN trace of PEAK: it begins with {first!r}")
    return head


def _holds_fd(head: bytes, columns: str) -> bool:
    """Whether there are types of CAN FD where the columns have the type."""
    at = columns.find("T")
    kinds = rb"^[ \t]*(?:[^ \t\r\n]+[ \t]+){%d}(?:FD|FB|FE|BI)[ \t]" % max(at, 0)
    return at >= 0 and re.search(kinds, head, re.M) is not None
