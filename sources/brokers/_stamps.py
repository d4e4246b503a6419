"""Capture times that senders put beside a message: ns since the epoch, in decimal text or 8 bytes little-endian."""

from __future__ import annotations

__all__ = ["number_of", "stamp_of"]


def stamp_of(value: bytes | str | None) -> int | None:
    """The ns that decimal text says; None if it is no such text of an int64."""
    if value is None:
        return None
    text = value.encode() if isinstance(value, str) else bytes(value)
    if not (text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if number < 1 << 63 else None


def number_of(frame: bytes) -> int | None:
    """A number as 8 bytes little-endian or as decimal text; None if it is neither, or no int64.

    Decimal text of 8 digits reads as bytes: times have 19, and sequence numbers should be bytes.
    """
    if len(frame) == 8:
        number = int.from_bytes(frame, "little")
        return number if number < 1 << 63 else None
    return stamp_of(frame)
