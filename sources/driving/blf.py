"""Vector CAN logs in binary (.blf, of CANoe, CANalyzer, CANape, loggers and python-can) as ``can.frame`` rows.

::

    frames = ps.read(sources.Blf("drive.blf", timezone="Europe/Berlin"))
    frames.apply(ops.CanSignals("car.dbc", "WheelSpeeds")).write(sinks.Parquet("wheels/"))
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
from ..storage.unpack import BytesFeed, head_of, open_feed
from ._blf_format import HEADER, FileHead, is_blf, read_head
from ._can_dated_log import DatedLog
from ._can_tables import can_fields
from ._dataset_times import civil_ns, zone

if TYPE_CHECKING:
    from ._blf_reader import BlfReader

__all__ = ["Blf", "inspect_blf", "is_blf", "open_blf"]

_HEAD = 1 << 16
#: The head of an object that may hold a CAN FD frame.
_FD = re.compile(rb"LOBJ..[\1-\3]\0....[\x64\x65]\0\0\0", re.S)


@dataclass(frozen=True)
class Blf(DatedLog):
    """A BLF log as ``can.frame``: bus, can_id, ext, fd, len, data behind ts_event, ts_recv and seq.

    ``bus`` is the channel (from 1). ``can_id`` has bit 30 set for a remote frame; an error frame has bit 29 and nothing
    else. Of a CAN FD frame of which fewer bytes are stored than it had, the others are zero, as in Vector's own tools.
    ``ts_event`` is the start of the measurement in the file's head, a local time without a zone, in `timezone`, plus the
    object's time, exactly (10 us or 1 ns a step). `start` (``2014-04-16 09:21:13.159``) replaces it; without either, times
    count from 1970 and ``penstock.clock`` is ``boot+offset``. ``ts_recv`` equals ``ts_event``; `seq` numbers all objects.
    ``data`` has 64 bytes if `fd`, else 8; None looks for objects of CAN FD in what the first 64 KiB hold.

    Objects that are no frames are counted as dropped by type. An object that cannot be read, and what lies where none
    begins, is a bad record (operation ``blf.decode``, ``blf.frame``); so is a container that does not unpack.
    Raises GraphError for wrong arguments; `open` raises FormatError for a file of another format, OSError.
    """

    format: ClassVar[str] = "blf"

    @property
    def schema(self) -> pa.Schema:
        """See above. Reads the first 64 KiB; raises FormatError, OSError."""
        content, head = _head(self.path)
        return self._schema(content, head)

    def _schema(self, content: bytes, head: FileHead) -> pa.Schema:
        fields = can_fields(_holds_fd(content, head) if self.fd is None else self.fd)
        clock = "utc" if self._origin(head) is not None else "boot+offset"
        return event_schema(fields, source=self.name, format=self.format, clock=clock, table="can.frame")

    def _origin(self, head: FileHead) -> int | None:
        at = zone(self.timezone)
        return civil_ns(self.start, at) if self.start is not None else head.start_ns(at)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return self._reader(context, position)

    def _reader(self, context: Context, position: Position | None) -> BlfReader:
        from ._blf_reader import BlfReader

        content, head = _head(self.path)
        return BlfReader(
            open_feed(self.path),
            origin=self._origin(head) or 0,
            start=head.size,
            path=str(self.path),
            schema=self._schema(content, head),
            context=context,
            position=position,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode an object again. None for what is no whole object."""
        from ._blf_reader import decode_object

        content, head = _head(self.path)
        return decode_object(record, self._origin(head) or 0, self._schema(content, head))

    @property
    def block_bound(self) -> int:
        return 16 << 20


def open_blf(path: PathLike, **options: Any) -> Blf:
    """The frames of a BLF log; `options` are those of `Blf`."""
    return Blf(path, **options)


def inspect_blf(path: PathLike) -> dict[str, Any]:
    """What a BLF log holds, found by reading it. Keys: ``format``, ``compression``, ``messages`` (objects), ``topics`` (by
    channel: type, messages, schema), ``other`` (objects that are no frames, by type), ``bad``, ``time``, ``schema``,
    ``problem``. Raises FormatError, OSError."""
    from ._can_survey import contents

    spec = Blf(path)
    dated = spec._origin(_head(path)[1]) is not None
    return contents(
        spec._reader(Context("inspect"), None), path, spec.schema, name="Vector BLF", bus="channel", dated=dated
    )


def _head(path: PathLike) -> tuple[bytes, FileHead]:
    content, _ = head_of(path, _HEAD)
    if not content:
        raise FormatError(f"{location(path)} is empty: it holds no CAN frames")
    if not is_blf(content):
        raise FormatError(f"{location(path)} is no BLF log: it begins with {content[:16].hex(' ')}")
    head = read_head(content)
    if head is None:
        raise FormatError(f"{location(path)} is cut inside the head of a BLF log, after {len(content)} bytes")
    return content, head


def _holds_fd(content: bytes, head: FileHead) -> bool:
    from ._blf_containers import Content, read_containers

    tail = b""  # an object's head may be in two containers
    for each in read_containers(BytesFeed(content), "", head.size):
        data = tail + each.data if isinstance(each, Content) else b""
        if _FD.search(data) is not None:
            return True
        tail = data[1 - HEADER :]
    return False
