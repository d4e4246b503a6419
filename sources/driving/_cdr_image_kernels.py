"""sensor_msgs/CompressedImage: where the picture is, and what its first bytes say about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_kernels import Bytes, Ints, align, head, move, spare, text, u16, u32

__all__ = ["H264", "H265", "JPEG", "OTHER", "PNG", "ends", "gather", "images", "look"]

JPEG, PNG, H264, H265, OTHER = range(5)


@kernel
def images(
    b: Bytes,
    starts: Ints,
    lengths: Ints,
    log_times: Ints,
    most: int,
    first: int,
    status: Bytes,
    ts_event: Ints,
    ts_recv: Ints,
    seq: Any,
    places: Ints,
) -> int:
    """Rows of the messages whose `status` is 0 and stays so; returns how many.

    ``places[:, row]``: where the frame_id, the format and the picture are, each with its length.
    """
    k = 0
    for i in range(starts.shape[0]):
        if status[i]:
            continue
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
        if bad:
            status[i] = bad
            continue
        ts_event[k], ts_recv[k], seq[k] = stamp, log_times[i], first + i
        places[0, k], places[1, k] = at, size
        places[2, k], places[3, k] = kind_at, kind_size
        places[4, k], places[5, k] = picture_at, picture_size
        k += 1
    return k


@kernel
def ends(size: Ints, offsets: Ints) -> Any:
    """Running sums of `size` from 0 on, as Arrow's offsets; returns the last."""
    total: Any = np.int64(0)
    offsets[0] = 0
    for i in range(size.shape[0]):
        total += size[i]
        offsets[i + 1] = total
    return total


@kernel
def gather(b: Bytes, at: Ints, size: Ints, offsets: Ints, out: Bytes) -> None:
    """Pieces of `b`, one behind the other, at `offsets` of `out`."""
    for i in range(at.shape[0]):
        move(out, offsets[i], b, at[i], size[i])


@kernel
def look(b: Bytes, at: Ints, size: Ints, codec: Ints, width: Any, height: Any, key: Bytes) -> int:
    """Codec by signature (`codec` holds what the format text says), width and height (0: not found), key frames.

    Returns how many widths were found.
    """
    found = 0
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
        found += w > 0
    return found


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
