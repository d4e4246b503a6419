"""The header that a DBN stream begins with: as a file has it, a bare one where there is none, and one for several files."""

from __future__ import annotations

from collections.abc import Sequence

from ...pipeline.errors import FormatError
from ..market._dbn_file import _DBZ_FIXED, Opened, _unpacked
from ..market._dbn_layout import SCHEMA_CODES, UNDEF_TIME
from ..storage.stored import open_stored
from ..storage.unpack import open_feed

__all__ = ["header_of", "merged_header"]

#: Behind the first 8 bytes: dataset and schema, then start, end and limit; the rest differs by version.
_START, _END, _BEHIND = 18, 26, 42


def header_of(path: str, opened: Opened, schema: str | None) -> bytes:
    """The header as it is in the file; that of a DBZ file as version 1 has it, and a bare one for a fragment."""
    if opened.fragment:
        return _bare(opened.metadata.version, schema, opened.metadata.ts_out)
    if opened.dbz:
        with open_stored(path) as stored:
            data = stored.read(8, int.from_bytes(stored.read(4, 4), "little"))
        body = data[4:54] + data[55:57] + b"\0" + bytes(47) + _unpacked(data[_DBZ_FIXED:], path)
        return b"DBN\x01" + len(body).to_bytes(4, "little") + body
    feed = open_feed(path)
    try:
        header = bytearray(opened.metadata.size)
        return bytes(header[: feed.fill(memoryview(header))])
    finally:
        feed.close()


def _bare(version: int, schema: str | None, ts_out: bool) -> bytes:
    """A header that names nothing but the schema."""
    code = SCHEMA_CODES.index(schema) if schema in SCHEMA_CODES else 0xFFFF
    width, reserved = (b"", 47) if version == 1 else ((71).to_bytes(2, "little"), 53)
    count = bytes(8) if version == 1 else b""
    span = bytes(8) + UNDEF_TIME.to_bytes(8, "little") + bytes(8)  # from 1970, no end, no limit
    kinds = b"\xff\x00" + bytes([ts_out])
    body = bytes(16) + code.to_bytes(2, "little") + span + count + kinds + width + bytes(reserved) + bytes(4 * 5)
    return b"DBN" + bytes([version]) + len(body).to_bytes(4, "little") + body


def merged_header(headers: Sequence[bytes]) -> bytes:
    """One header for the records of several files: all that they span, all symbols and mappings, without a limit.

    Raises FormatError where they differ in version, dataset, schema or kinds of symbols.
    """
    parts = [_Parts(header) for header in headers]
    first = parts[0]
    if any(part.kind != first.kind for part in parts):
        raise FormatError(
            "the DBN files differ in version, dataset, schema or kinds of symbols: replay them one by one"
        )
    lists = b""
    for number in range(3):
        names = list(dict.fromkeys(name for part in parts for name in part.lists[number]))
        lists += len(names).to_bytes(4, "little") + b"".join(names)
    count = sum(part.mappings for part in parts)
    mappings = count.to_bytes(4, "little") + b"".join(part.mapped for part in parts)
    start = min(part.start for part in parts).to_bytes(8, "little")
    end = max(part.end for part in parts).to_bytes(8, "little")
    body = first.name + start + end + bytes(8) + first.rest + lists + mappings
    return headers[0][:4] + len(body).to_bytes(4, "little") + body


class _Parts:
    """A header that was read before, so that its lengths are sound, taken apart."""

    def __init__(self, header: bytes) -> None:
        version, body = header[3], header[8:]
        self.name = body[:_START]
        self.start, self.end = (int.from_bytes(body[at : at + 8], "little") for at in (_START, _END))
        behind = _BEHIND + (8 if version == 1 else 0)  # version 1 counts its records
        at = behind + (3 + 47 if version == 1 else 3 + 2 + 53)
        width = 22 if version == 1 else int.from_bytes(body[_BEHIND + 3 : _BEHIND + 5], "little")
        at += 4 + int.from_bytes(body[at : at + 4], "little")
        self.rest, self.kind = bytes(behind - _BEHIND) + body[behind:at], (version, self.name, body[behind:at])
        self.lists: list[list[bytes]] = []
        for _ in range(3):
            count = int.from_bytes(body[at : at + 4], "little")
            at += 4
            self.lists.append([body[at + i * width : at + (i + 1) * width] for i in range(count)])
            at += count * width
        self.mappings = int.from_bytes(body[at : at + 4], "little")
        self.mapped = _whole(body[at + 4 :], self.mappings, width)


def _whole(data: bytes, count: int, width: int) -> bytes:
    """The bytes of so many mappings, without the padding behind them."""
    at = 0
    for _ in range(count):
        intervals = int.from_bytes(data[at + width : at + width + 4], "little")
        at += width + 4 + intervals * (8 + width)
    return data[:at]
