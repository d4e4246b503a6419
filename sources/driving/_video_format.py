"""Which container a video file is, by its first bytes, and what its codecs are called. No library is needed for this."""

from __future__ import annotations

from ...pipeline._nal import nal_units, start_codes

__all__ = ["CODECS", "CONTAINERS", "RAW", "container_of", "entry_of", "is_leading", "nal_types"]

#: FFmpeg's demuxer by container. It is always named, so that bytes cannot choose a format that opens other files.
CONTAINERS = {
    "mp4": "mov",
    "matroska": "matroska",
    "mpegts": "mpegts",
    "avi": "avi",
    "h264": "h264",
    "h265": "hevc",
    "mjpeg": "mjpeg",
}
#: Containers that hold no times of their own.
RAW = ("h264", "h265", "mjpeg")
#: What FFmpeg's codecs are called in `cam.encoded`.
CODECS = {"h264": "h264", "hevc": "h265", "mjpeg": "jpeg", "mjpegb": "jpeg"}

_PICTURES = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"M4A ", b"M4B ", b"jp2 ", b"crx ")
_H264_PROFILES = (44, 66, 77, 88, 100, 110, 118, 122, 128, 138, 139, 134, 135, 244)
_JPEG = b"\xff\xd8\xff"


def container_of(head: bytes) -> str | None:
    """A key of `CONTAINERS`, or None if `head` (the more the better, up to 64 KiB) is no video that is known."""
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _PICTURES else "mp4"
    if head[4:8] in (b"moov", b"wide") or (head[4:8] in (b"mdat", b"free", b"skip") and b"moov" in head[8:]):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska" if b"matroska" in head[:64] or b"webm" in head[:64] else None
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if _is_transport_stream(head):
        return "mpegts"
    if head[:3] == b"\0\0\1" or head[:4] == b"\0\0\0\1":
        return _annex_b(head)
    if head[:3] == _JPEG and _second_picture(head):
        return "mjpeg"
    return None


def _is_transport_stream(head: bytes) -> bool:
    for first, step in ((0, 188), (4, 192)):
        syncs = [head[at] == 0x47 for at in range(first, min(len(head), first + 8 * step), step)]
        if len(syncs) >= 4 and all(syncs):
            return True
    return False


def _annex_b(head: bytes) -> str | None:
    starts = [head[at : at + 3] for at in start_codes(head)]
    hevc = [nal for nal in starts if len(nal) >= 2 and not nal[0] & 0x81 and nal[1] & 7]
    if len(hevc) == len(starts) and {32, 33} <= {nal[0] >> 1 & 0x3F for nal in hevc}:
        return "h265"
    avc = [nal for nal in starts if len(nal) >= 2 and not nal[0] & 0x80]
    profiles = [nal[1] for nal in avc if nal[0] & 0x1F == 7]
    if profiles and all(p in _H264_PROFILES for p in profiles) and any(nal[0] & 0x1F == 8 for nal in avc):
        return "h264"
    return None


def _second_picture(head: bytes) -> bool:
    """Whether a JPEG picture is directly followed by another one, its markers walked as they are written."""
    at = 2
    while at + 4 <= len(head):
        if head[at] != 0xFF:
            return False
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xD9:
            return head[at + 2 : at + 5] == _JPEG
        elif marker == 0xDA:
            end = head.find(b"\xff\xd9", at + 4)
            return end >= 0 and head[end + 2 : end + 5] == _JPEG
        elif marker in (0x01, *range(0xD0, 0xD8)):
            at += 2
        else:
            at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return False


def nal_types(data: bytes, codec: str, length_size: int) -> list[int]:
    """The types of the NAL units of a packet, with lengths of `length_size` bytes in front (0: start codes)."""
    starts = [at for at, _ in nal_units(data, length_size)]
    return [data[at] & 0x1F if codec == "h264" else data[at] >> 1 & 0x3F for at in starts]


def entry_of(data: bytes, codec: str, length_size: int) -> str:
    """How decoding may begin afresh at this key packet: ``closed``, ``open`` or ``no``.

    ``closed``: what follows needs nothing from before (an H.264 or H.265 IDR picture, any key picture of other codecs).
    ``open``: the same without the pictures that lead it, shown before it and made of what came before (H.265 CRA, BLA).
    """
    if codec not in ("h264", "h265"):
        return "closed"
    kinds = nal_types(data, codec, length_size)
    if any(kind in ((5,) if codec == "h264" else (19, 20)) for kind in kinds):
        return "closed"
    return "open" if codec == "h265" and any(16 <= kind <= 23 for kind in kinds) else "no"


def is_leading(data: bytes, codec: str, length_size: int) -> bool:
    """Whether a packet leads the H.265 key picture it follows: shown before it, and maybe made of what came before."""
    return codec == "h265" and any(6 <= kind <= 9 for kind in nal_types(data, codec, length_size))
