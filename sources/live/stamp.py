"""The header that a replay puts in front of a message, so that what receives it knows when it was recorded.

Without it a live source stamps messages with the time they came; with it rows are those of the recording, to the byte.
`HEADER`: magic ``PNSK``, payload length u32, time of sending u64, recorded time u64 (both ns), channel u16, number u16;
little-endian. Numbers count datagrams from 1 to 65,535 and on from 1, so that a lost one shows; 0: not counted. Text
messages on a WebSocket carry ``<recorded ns><space>`` instead, as raw recorder files do, and HTTP requests the header
`HTTP_FIELD`, with the channel in `HTTP_CHANNEL` where it is not 0.
"""

from __future__ import annotations

import struct

__all__ = ["HEADER", "HTTP_CHANNEL", "HTTP_FIELD", "MAGIC", "MOST_NUMBER", "number_of", "pack", "split_text", "unpack"]

MAGIC = b"PNSK"
HEADER = struct.Struct("<4sIQQHH")
MOST_NUMBER = 65_535
HTTP_FIELD = "X-Penstock-Recv-Ns"
HTTP_CHANNEL = "X-Penstock-Channel"


def pack(data: bytes, ts_ns: int, send_ns: int, channel: int = 0, number: int = 0) -> bytes:
    """`data` behind its header."""
    return HEADER.pack(MAGIC, len(data), send_ns, ts_ns, channel, number) + data


def number_of(message: bytes) -> int:
    """The number of a message that has a header; 0 if it has none."""
    return int.from_bytes(message[HEADER.size - 2 : HEADER.size], "little")


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
