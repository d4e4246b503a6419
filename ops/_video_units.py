"""What a piece of encoded video is, by its own bytes: the codec, where decoding can begin, and parameter sets.

A unit is what one row holds: a picture, coded in H.264 or H.265 NAL units behind start codes (Annex B), or a JPEG.
Headers: ITU-T H.264, 7.3.1, 7.3.3 and D.2.8 (recovery point); ITU-T H.265, 7.3.1.2 and table 7-1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..pipeline._nal import nal_units, slice_of

__all__ = ["DECODERS", "Content", "codec_name", "content_of", "guessed_codec"]

#: FFmpeg's decoder by codec as `cam.encoded` calls it.
DECODERS = {"h264": "h264", "h265": "hevc", "jpeg": "mjpeg"}

_SIGNS = (("h264", ("h264", "h.264", "avc")), ("h265", ("h265", "h.265", "hevc")), ("jpeg", ("jpeg", "jpg")))
_SETS = {"h264": (7, 8), "h265": (32, 33, 34)}
_H264_SEI, _RECOVERY_POINT = 6, 6


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a unit.

    `entry` says how decoding may begin here: ``closed`` (nothing in front is needed), ``open`` (the same, but pictures
    that follow in the stream and are shown before it may need what was in front of it) or ``no``. `leading`: it may be
    such a picture. `picture`: there is one at all. `sets`: the parameter sets, with start codes; `complete`: a sequence's
    is among them. `slice`: the first bytes of the first slice, of H.264.
    """

    entry: str
    leading: bool
    picture: bool
    sets: bytes = b""
    complete: bool = True
    slice: bytes = b""


def codec_name(text: str | None) -> str | None:
    """The codec that a column or a message's ``format`` names, as `DECODERS` has it where it does; None if unknown."""
    plain = (text or "").strip().lower()
    for name, signs in _SIGNS:
        if any(sign in plain for sign in signs):
            return name
    return None if plain in ("", "unknown") else plain


def guessed_codec(data: bytes) -> str | None:
    """The codec by what a stream begins with: a JPEG, or parameter sets of H.264 or H.265; None for anything else."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    heads = [data[at : at + 2] for at, _ in nal_units(data)]
    if any(head[0] & 0x9F == 7 and head[0] & 0x60 for head in heads):
        return "h264"
    return "h265" if any(head[0] >> 1 == 32 and len(head) == 2 and head[1] & 7 for head in heads) else None


def content_of(data: bytes, codec: str) -> Content:
    """What is in `data`. Raises ValueError for bytes that are no unit of that codec."""
    if not data:
        raise ValueError("a unit of 0 bytes")
    if codec == "jpeg":
        if data[:2] != b"\xff\xd8":
            raise ValueError(f"no JPEG: it begins with {data[:2].hex(' ')}, not with ff d8")
        return Content("closed", False, True)
    units = nal_units(data)
    if not units:
        raise ValueError(f"no start code (00 00 01) in {len(data)} bytes: video in messages is Annex B")
    avc = codec == "h264"
    kinds = [data[at] & 0x1F if avc else data[at] >> 1 & 0x3F for at, _ in units]
    pictures = [kind for kind in kinds if (1 <= kind <= 5 if avc else kind < 32)]
    sets = b"".join(
        b"\0\0\0\1" + data[at:end].rstrip(b"\0")
        for kind, (at, end) in zip(kinds, units, strict=True)
        if kind in _SETS[codec]
    )
    complete = (7 if avc else 33) in kinds
    if avc:
        first = next((data[at : at + 32] for kind, (at, _) in zip(kinds, units, strict=True) if kind in (1, 2, 5)), b"")
        head = slice_of(first, None) if first else None
        leading = head is not None and head.is_b
        return Content(_h264_entry(data, kinds, units), leading, bool(pictures), sets, complete, first)
    entry = "no"
    if pictures and 16 <= pictures[0] <= 23:
        entry = "closed" if pictures[0] in (19, 20) else "open"
    return Content(entry, any(6 <= kind <= 9 for kind in pictures), bool(pictures), sets, complete)


def _h264_entry(data: bytes, kinds: list[int], units: list[tuple[int, int]]) -> str:
    if 5 in kinds:
        return "closed"
    for kind, (at, end) in zip(kinds, units, strict=True):
        if kind == _H264_SEI and _tells_recovery(data[at + 1 : end]):
            return "open"
    return "no"


def _tells_recovery(sei: bytes) -> bool:
    at = 0
    while at + 2 <= len(sei) and sei[at] != 0x80:
        values = []
        for _ in range(2):  # type and size of a message, each in bytes of ff and a last one
            value = 0
            while at < len(sei) and sei[at] == 0xFF:
                value, at = value + 255, at + 1
            values.append(value + (sei[at] if at < len(sei) else 0))
            at += 1
        if values[0] == _RECOVERY_POINT:
            return True
        at += values[1]
    return False
