"""SocketCAN logs: what ``candump -l`` and ``candump -ta`` (also with ``-x``) write, plain or packed, as ``can.frame`` rows.

::

    (1436509052.249713) vcan0 044#2A366C2B00000000
    (1436509052.249813) can1 12345678##3112233445566778899AABB
    (1436509052.249913) vcan0 123#R8
    (1436509052.250013)  can0  044   [8]  2A 36 6C 2B 00 00 00 00
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.names import names_in
from ...pipeline.schema import describe, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import head_of, open_feed
from ._can_tables import can_fields

if TYPE_CHECKING:
    from ._can_lines import CanLogReader

__all__ = ["Candump", "inspect_candump", "is_candump", "open_candump"]

_HEAD = 1 << 16
_LINE = re.compile(
    rb"\(\d{1,10}\.\d{1,9}\)[ \t]+[^ \t]{1,15}[ \t]+(?:[RT]X[ \t]+[B-][ \t]+[E-][ \t]+)?"
    rb"[0-9A-Fa-f]{3}(?:[0-9A-Fa-f]{5})?(?:#|[ \t]+\[)"
)
_NAMED = re.compile(rb"\([0-9.]*\)[ \t\r]+([^ \t\r]{1,15})[ \t\r]")


@dataclass(frozen=True)
class Candump(SourceSpec):
    """A candump log as ``can.frame``: bus, can_id, ext, fd, len, data behind ts_event, ts_recv and seq.

    ``bus`` is the number of the line's interface in the order of first appearance, or in `interfaces` (others follow);
    those met in the first 64 KiB are in the schema's metadata, ``penstock.interfaces``, by number. ``can_id`` has bit 30
    set for a remote and bit 29 for an error frame. Times are read exactly; ``ts_recv`` equals ``ts_event``; `seq` numbers
    all lines that are not blank. ``data`` has 64 bytes if `fd`, else 8; None looks for CAN FD frames in the first 64 KiB.

    A line that is no frame is a bad record with its offset in the unpacked content (operation ``candump.decode``).
    Raises GraphError for wrong arguments; `open` raises FormatError for a file of another format, OSError.
    """

    format: ClassVar[str] = "candump"
    path: PathLike
    fd: bool | None = None
    interfaces: Sequence[str] = ()
    lateness: Duration = "100ms"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        object.__setattr__(self, "interfaces", names_in(self.interfaces))
        names = self.interfaces
        good = all(re.fullmatch(r"[!-~\xa1-\xff]{1,15}", name) for name in names)
        if len(names) > 256 or not good or len(set(names)) < len(names):
            raise GraphError("interfaces must be up to 256 different names of 1 to 15 characters", got=names)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return base_name(self.path)

    @property
    def schema(self) -> pa.Schema:
        """See above. Reads the first 64 KiB; raises FormatError, OSError."""
        return self._schema(_head(self.path))

    def _schema(self, head: bytes) -> pa.Schema:
        fields = can_fields(_holds_fd(head) if self.fd is None else self.fd)
        names = list(self.interfaces)
        for found in _NAMED.finditer(head):
            name = found[1].decode("latin-1")
            begins = not head[head.rfind(b"\n", 0, found.start()) + 1 : found.start()].strip(b" \t\r")
            if begins and name not in names and len(names) < 256:
                names.append(name)
        return event_schema(fields, source=self.name, format=self.format, table="can.frame", interfaces=",".join(names))

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return self._reader(context, position)

    def _reader(self, context: Context, position: Position | None) -> CanLogReader:
        from ._can_grammars import CandumpGrammar
        from ._can_lines import CanLogReader

        schema = self._schema(_head(self.path))
        return CanLogReader(
            open_feed(self.path),
            CandumpGrammar(self.interfaces),
            path=str(self.path),
            schema=schema,
            context=context,
            position=position,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again; its bus is that of `interfaces`, or 0."""
        from ._can_grammars import CandumpGrammar
        from ._can_lines import decode_line

        schema = event_schema(can_fields(self.fd is not False), source=self.name, format=self.format, table="can.frame")
        return decode_line(record, CandumpGrammar(self.interfaces), schema)

    @property
    def block_bound(self) -> int:
        return 8 << 20


def is_candump(head: bytes) -> bool:
    """Whether a file that begins with `head` is a candump log: its first line that is not blank is a frame."""
    line = head.lstrip(b" \t\r\n").split(b"\n", 1)[0]
    return _LINE.match(line) is not None


def open_candump(path: PathLike, **options: Any) -> Candump:
    """The frames of a candump log; `options` are those of `Candump`."""
    return Candump(path, **options)


def inspect_candump(path: PathLike) -> dict[str, Any]:
    """What a candump log holds, found by reading it. Keys: ``format``, ``compression``, ``messages`` (lines), ``topics`` (by
    interface: type, messages, schema), ``bad``, ``time``, ``schema``, ``problem``. Raises FormatError, OSError."""
    from ._can_survey import survey

    spec = Candump(path)
    reader = spec._reader(Context("inspect"), None)
    try:
        found = survey(reader)
        names = reader.grammar.position()["interfaces"]
    finally:
        reader.close()
    schema = describe(spec.schema)
    topics = {
        name: {"type": "can.frame", "messages": int(found.buses[i]), "schema": schema} for i, name in enumerate(names)
    }
    return {
        "format": "candump",
        "compression": head_of(path, 16)[1],
        "messages": found.messages,
        "topics": topics,
        "one_table": True,
        "hint": "ops.CanSignals(DBC, MESSAGE) makes columns of signals",
        "bad": found.bad,
        "time": found.time,
        "schema": schema,
        "problem": found.problem,
    }


def _head(path: PathLike) -> bytes:
    head, _ = head_of(path, _HEAD)
    if not head.strip():
        raise FormatError(f"{location(path)} is empty: it holds no CAN frames")
    if not is_candump(head):
        first = head.lstrip()[:60].split(b"\n", 1)[0]
        raise FormatError(f"{location(path)} is no candump log: it begins with {first!r}")
    return head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1]


def _holds_fd(head: bytes) -> bool:
    return b"##" in head or re.search(rb"[ \t]\[\d\d\][ \t]", head) is not None
