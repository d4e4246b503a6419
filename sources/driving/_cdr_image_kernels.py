"""sensor_msgs/CompressedImage: where the picture is, and what its first bytes say about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_kernels import Bytes, Ints, align, head, move, spare, text, u16, u32

__all__ = ["H264", "H265", "JPEG", "OTHER", "PNG", "gather", "images", "look"]

JPEG, PNG, H264, H265, OTHER = range(5)


@kernel
def images(
    b: Bytes,
    starts: Ints,
    lengths: Ints,
    log_times: Ints,
    most: int,
    status: Bytes,
    ts_event: Ints,
    id_at: Ints,
    id_size: Ints,
    format_at: Ints,
    format_size: Ints,
    data_at: Ints,
    data_size: Ints,
) -> None:
    """Places of the fields of each message; where ``status[i]`` is not 0 the others are 0."""
    for i in range(starts.shape[0]):
        end, origin = starts[i] + lengths[i], starts[i] + 4
        bad, big, stamp, at, size, p = head(b, starts[i], lengths[i], log_times[i], most)
        kind_at, kind_size, picture_at, picture_size = 0, 0, 0, 0
        if bad == 0:
            kind_at, kind_size, p = text(b, p, origin, end, big, most)
            if kind_size < 0:
                bad = 3
        if bad == 0:
            p = align(p, origin, 4, most)
            if end - p < 4:
                bad = 1
            else:
                picture_at, picture_size = p + 4, u32(b, p, big)
                rest = end - picture_at - picture_size
                if rest < 0:
                    bad = 6
                elif rest > spare(most):
                    bad = 4
        status[i] = bad
        good = bad == 0
        ts_event[i] = stamp if good else 0
        id_at[i], id_size[i] = (at, size) if good else (0, 0)
        format_at[i], format_size[i] = (kind_at, kind_size) if good else (0, 0)
        data_at[i], data_size[i] = (picture_at, picture_size) if good else (0, 0)


@kernel
def gather(b: Bytes, at: Ints, size: Ints, offsets: Ints, out: Bytes) -> None:
    """Pieces of `b`, one behind the other, at `offsets` of `out`."""
    for i in range(at.shape[0]):
        move(out, offsets[i], b, at[i], size[i])


@kernel
def look(b: Bytes, at: Ints, size: Ints, codec: Ints, width: Any, height: Any, key: Bytes) -> None:
    """Codec by signature (`codec` holds what the format text says), width and height (0: not found), key frames."""
    for i in range(at.shape[0]):
        p, end = at[i], at[i] + size[i]
        w: Any = np.int64(0)
        h: Any = np.int64(0)
        key[i] = 1
        if size[i] >= 2 and b[p] == 0xFF and b[p + 1] == 0xD8:
            codec[i] = 0
            w, h = _jpeg_size(b, p, end)
        elif size[i] >= 24 and u32(b, p, True) == 0x89504E47 and u32(b, p + 12, True) == 0x49484452:
            codec[i] = 1
            w, h = u32(b, p + 16, True), u32(b, p + 20, True)
            if w >= 1 << 31 or h >= 1 << 31:
                w, h = np.int64(0), np.int64(0)
        elif codec[i] == 2 or codec[i] == 3:
            key[i] = _is_key(b, p, end, codec[i] == 3)
        width[i], height[i] = w, h


@kernel
def _jpeg_size(b: Any, p: int, end: int) -> tuple[Any, Any]:
    p += 2
    while end - p >= 4 and b[p] == 0xFF:
        marker = b[p + 1]
        if marker == 0xFF:
            p += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            p += 2
            continue
        if marker == 0xD9 or marker == 0xDA:
            break
        length = u16(b, p + 2, True)
        if 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC:
            if end - p >= 9:
                return u16(b, p + 7, True), u16(b, p + 5, True)
            break
        if length < 2:
            break
        p += 2 + length
    return np.int64(0), np.int64(0)


@kernel
def _is_key(b: Any, p: int, end: int, hevc: bool) -> Any:
    """Whether the first slice of an Annex B access unit is of an IDR (H.264) or IRAP (H.265) picture."""
    while end - p >= 4:
        if b[p] == 0 and b[p + 1] == 0 and b[p + 2] == 1:
            if hevc:
                unit = (b[p + 3] >> 1) & 0x3F
                if unit < 32:
                    return 16 <= unit <= 23
            else:
                unit = b[p + 3] & 0x1F
                if 1 <= unit <= 5:
                    return unit == 5
            p += 3
        p += 1
    return False
