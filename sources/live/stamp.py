"""The header that a replay puts in front of a message, so that what receives it knows when it was recorded.

Without it a live source stamps messages with the time they came; with it rows are those of the recording, to the byte.
`HEADER`: magic ``PNSK``, payload length u32, time of sending u64, recorded time u64 (both ns), channel u16, flags u16;
little-endian. Text messages on a WebSocket carry ``<recorded ns><space>`` instead, as raw recorder files do, and HTTP
requests the header `HTTP_FIELD`.
"""

from __future__ import annotations

import struct

__all__ = ["HEADER", "HTTP_FIELD", "MAGIC", "pack", "split_text", "unpack"]

MAGIC = b"PNSK"
HEADER = struct.Struct("<4sIQQHH")
HTTP_FIELD = "X-Penstock-Recv-Ns"


def pack(data: bytes, ts_ns: int, send_ns: int, channel: int = 0) -> bytes:
    """`data` behind its header."""
    return HEADER.pack(MAGIC, len(data), send_ns, ts_ns, channel, 0) + data


def unpack(message: bytes) -> tuple[int, int, bytes] | None:
    """(recorded ns, channel, data) of one whole message; None if it has no header."""
    if len(message) < HEADER.size or message[:4] != MAGIC:
        return None
    _, length, _, ts_ns, channel, _ = HEADER.unpack_from(message)
    data = message[HEADER.size :]
    return (ts_ns, channel, data) if len(data) == length else None


def split_text(line: bytes) -> tuple[int, bytes] | None:
    """(recorded ns, text) of ``<ns><space><text>``; None if it does not begin so."""
    end = line.find(b" ", 0, 20)
    if end <= 0 or not line[:end].isdigit():
        return None
    return int(line[:end]), line[end + 1 :]
