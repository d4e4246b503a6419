"""What the first bytes of a picture file say about it."""

from __future__ import annotations

import struct

__all__ = ["picture_head"]


def picture_head(data: bytes | memoryview) -> tuple[str, int, int]:
    """``(codec, width, height)`` of a JPEG or PNG file. Raises ValueError for anything else and for a damaged head."""
    head = memoryview(data)
    first = bytes(head[:16])
    if len(head) >= 24 and first[:8] == b"\x89PNG\r\n\x1a\n" and first[12:] == b"IHDR":
        width, height = struct.unpack_from(">II", head, 16)
        if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
            raise ValueError(f"a PNG picture of {width} x {height} pixels")
        if bytes(head[-8:-4]) != b"IEND":
            raise ValueError(f"the PNG file is cut: its {len(head)} bytes do not end with an IEND chunk")
        return "png", width, height
    if first[:2] == b"\xff\xd8":
        return "jpeg", *_jpeg_size(head)
    raise ValueError(f"it begins with {first[:8].hex(' ') or 'nothing'}: neither a JPEG nor a PNG picture")


def _jpeg_size(head: memoryview) -> tuple[int, int]:
    at = 2
    while len(head) - at >= 4 and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        length = int.from_bytes(head[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(head) - at >= 9:
            height, width = struct.unpack_from(">HH", head, at + 5)
            if width and height:
                return width, height
            break
        if marker in (0xD9, 0xDA) or length < 2:
            break
        at += 2 + length
    raise ValueError("the head of the JPEG file does not tell its size: it is damaged or cut")
