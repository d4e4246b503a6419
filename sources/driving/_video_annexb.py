"""From the length-prefixed NAL units of mp4 and mkv to Annex-B, so that a key packet can be decoded on its own.

A packet of ``cam.encoded`` is then the same whether it came from a file, a transport stream or a ROS topic: start codes,
and the parameter sets in front of every key packet. ISO/IEC 14496-15, 5.3.3 (avcC) and 8.3.3 (hvcC).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ParameterSets", "parameter_sets", "to_annex_b"]

_START = b"\0\0\0\1"


@dataclass(frozen=True, slots=True)
class ParameterSets:
    """`length_size` is the width of the lengths in front of NAL units (0: start codes already), `data` the sets, Annex-B."""

    length_size: int
    data: bytes


def parameter_sets(codec: str, extradata: bytes) -> ParameterSets:
    """What the container's codec configuration says; a damaged one is read as far as it goes."""
    if codec == "h264" and extradata[:1] == b"\1" and len(extradata) >= 7:
        return ParameterSets((extradata[4] & 3) + 1, _avc_sets(extradata))
    if codec == "h265" and len(extradata) >= 23 and extradata[:3] not in (b"\0\0\1", b"\0\0\0"):
        return ParameterSets((extradata[21] & 3) + 1, _hevc_sets(extradata))
    return ParameterSets(0, b"")


def _avc_sets(extradata: bytes) -> bytes:
    out, at = b"", 5
    for mask in (0x1F, 0xFF):
        if at >= len(extradata):
            break
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            out, at = _take(extradata, at, out)
    return out


def _hevc_sets(extradata: bytes) -> bytes:
    out, at = b"", 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            if at + 2 > len(extradata):
                return out
            out, at = _take(extradata, at, out)
    return out


def _take(extradata: bytes, at: int, out: bytes) -> tuple[bytes, int]:
    size = int.from_bytes(extradata[at : at + 2], "big")
    unit = extradata[at + 2 : at + 2 + size]
    return (out + _START + unit if size and len(unit) == size else out), at + 2 + size


def to_annex_b(data: bytes, sets: ParameterSets, *, codec: str, keyframe: bool) -> bytes:
    """`data` with start codes instead of lengths. Raises ValueError where a length goes past the end of the packet."""
    pieces, at, size = [], 0, sets.length_size
    known = False
    while at < len(data):
        end = at + size
        length = int.from_bytes(data[at:end], "big")
        if end > len(data) or length > len(data) - end:
            raise ValueError(f"a NAL unit of {length} bytes at byte {at} goes past the packet's {len(data)} bytes")
        if length:
            kind = data[end] & 0x1F if codec == "h264" else data[end] >> 1 & 0x3F
            known = known or kind == (7 if codec == "h264" else 33)
            pieces += [_START, data[end : end + length]]
        at = end + length
    if keyframe and not known:
        pieces.insert(0, sets.data)
    return b"".join(pieces)
