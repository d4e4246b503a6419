"""BLF files put together by hand, for what python-can does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

__all__ = ["can_message", "container", "error", "error_ext", "fd_64", "fd_error_64", "fd_message", "file_head", "thing"]

START = (2014, 4, 3, 16, 9, 21, 13, 159)


def file_head(start: Sequence[int] = START, size: int = 144) -> bytes:
    """``LOGG``: the measurement starts at year, month, day of the week, day, hour, minute, second, ms."""
    fields = struct.pack("<4sIIBBBBQQII8H8H", b"LOGG", size, 4080200, 2, 6, 8, 1, 0, 0, 0, 0, *start, *start)
    return fields.ljust(size, b"\0")


def thing(
    kind: int, body: bytes, time: int = 0, *, flags: int = 2, version: int = 1, head: int = 0, size: int | None = None
) -> bytes:
    """An object without padding; `size` is what it says in place of its true size, `head` that of its head."""
    head = head or (40 if version == 2 else 32)
    said = head + len(body) if size is None else size
    base = struct.pack("<4sHHIIIHHQ", b"LOBJ", head, version, said & 0xFFFFFFFF, kind, flags, 0, 0, time)
    return base.ljust(head, b"\0") + body


def container(data: bytes, *, packed: bool = True, method: int | None = None, pad: bytes | None = None) -> bytes:
    """A container with its padding, by default that of Vector's tools: the size modulo four."""
    stored = zlib.compress(data, 1) if packed else data
    size, method = 32 + len(stored), (2 if packed else 0) if method is None else method
    head = struct.pack("<4sHHIIH6xII", b"LOBJ", 16, 1, size, 10, method, len(data), 0)
    return head + stored + (bytes(size % 4) if pad is None else pad)


def can_message(channel: int, number: int, data: bytes, *, flags: int = 0, code: int | None = None) -> bytes:
    """The body of CAN_MESSAGE; identifiers of 29 bits have bit 31 set."""
    return struct.pack("<HBBI8s", channel, flags, len(data) if code is None else code, number, data)


def fd_message(channel: int, number: int, data: bytes, *, flags: int = 0, fd: int = 1, code: int = 0) -> bytes:
    """The body of CAN_FD_MESSAGE."""
    return struct.pack("<HBBIIBBB5x64s4x", channel, flags, code, number, 0, 0, fd, len(data), data)


def fd_64(
    channel: int,
    number: int,
    data: bytes,
    *,
    flags: int = 0x1000,
    code: int = 0,
    valid: int | None = None,
    more: int = 0,
) -> bytes:
    """The body of CAN_FD_MESSAGE_64; `more` is where, from the object's beginning, what is no data begins."""
    size = len(data) if valid is None else valid
    return struct.pack("<BBBBIIIIIIIHBBI", channel, code, size, 0, number, 0, flags, 0, 0, 0, 0, 0, 0, more, 0) + data


def error(channel: int) -> bytes:
    """The body of CAN_ERROR."""
    return struct.pack("<HH4x", channel, 0)


def error_ext(channel: int, number: int = 0, data: bytes = b"") -> bytes:
    """The body of CAN_ERROR_EXT."""
    return struct.pack("<HHLBBBxLLH2x8s", channel, 0, 0, 0, 0, len(data), 0, number, 0, data)


def fd_error_64(channel: int, data: bytes = b"") -> bytes:
    """The body of CAN_FD_ERROR_64."""
    return struct.pack("<BBBB", channel, 0, len(data), 0).ljust(48, b"\0") + data
