"""NAL units of encoded video, and H.264 headers as far as they say that pictures are missing.

Sources of video and the decoding of rows both read them, and may not import each other. A decoder paints over a lost
reference without a word. But reference pictures are numbered (`frame_num`, ITU-T H.264, 7.4.3): a picture has the number of
the reference before it or the next one, modulo what the sequence parameter set says. Anything else is a gap, unless that set
allows for gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Numbering", "Slice", "gap_before", "nal_units", "numbering_of", "slice_of", "start_codes"]

#: Profiles whose parameter sets tell the chroma format (7.3.2.1.1).
_HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def start_codes(data: bytes) -> list[int]:
    """Where the NAL units of an Annex-B stream begin (behind ``00 00 01``)."""
    found, at = [], data.find(b"\0\0\1")
    while at >= 0:
        found.append(at + 3)
        at = data.find(b"\0\0\1", at + 3)
    return found


def nal_units(data: bytes, length_size: int = 0) -> list[tuple[int, int]]:
    """Where NAL units that are not empty begin and end: behind start codes, or lengths of `length_size` bytes.

    A length that goes past the end is taken for one that reaches it.
    """
    if not length_size:
        starts = start_codes(data)
        ends = [*(start - 3 for start in starts[1:]), len(data)][: len(starts)]
    else:
        starts, ends, at = [], [], 0
        while at + length_size < len(data):
            starts.append(at + length_size)
            at += length_size + int.from_bytes(data[at : at + length_size], "big")
            ends.append(min(at, len(data)))
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


@dataclass(frozen=True, slots=True)
class Numbering:
    """How a sequence numbers its pictures: `bits` of ``frame_num`` and those of the colour plane in front of it.

    Only `fields` may have the number of the reference before them.
    """

    bits: int
    plane_bits: int
    fields: bool

    def follows(self, number: int, before: int) -> bool:
        """Whether a picture may have `number` behind a reference picture numbered `before`."""
        return number == self.next(before) or (self.fields and number == before)

    def next(self, before: int) -> int:
        return (before + 1) % (1 << self.bits)


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice header: B slices may lead a key frame, `reference` pictures count, an `idr` starts anew at 0."""

    kind: int
    idr: bool
    reference: bool
    number: int | None

    @property
    def is_b(self) -> bool:
        return self.kind % 5 == 1


def numbering_of(sets: bytes) -> Numbering | None:
    """How pictures are numbered, by parameter sets in Annex B; None where gaps are allowed or it cannot be told."""
    found: list[Numbering | None] = []
    for unit in sets.split(b"\0\0\1"):
        if unit and unit[0] & 0x1F == 7:
            try:
                found.append(_numbering(_Bits(unit[1:].replace(b"\0\0\3", b"\0\0"))))
            except ValueError:
                return None
    return found[0] if found and all(other == found[0] for other in found) else None


def _numbering(bits: _Bits) -> Numbering | None:
    profile = bits.read(8)
    bits.read(16)
    bits.golomb()
    plane_bits = 0
    if profile in _HIGH:
        chroma = bits.golomb()
        plane_bits = 2 * bits.read(1) if chroma == 3 else 0
        bits.golomb(), bits.golomb(), bits.read(1)
        if bits.read(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    _skip_scaling(bits, 16 if number < 6 else 64)
    width = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.read(1), bits.golomb(), bits.golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.golomb()
    bits.golomb()
    gaps = bits.read(1)
    bits.golomb(), bits.golomb()
    return None if gaps or width > 16 else Numbering(width, plane_bits, not bits.read(1))


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            delta = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + delta) % 256
        last = following or last


def slice_of(unit: bytes, numbering: Numbering | None) -> Slice | None:
    """The header of a slice (a NAL unit of type 1, 2 or 5, of which the first 32 bytes are enough); None if it is cut."""
    bits = _Bits(unit[1:32].replace(b"\0\0\3", b"\0\0"))
    try:
        bits.golomb()
        kind = bits.golomb()
        bits.golomb()
        number = None
        if numbering is not None:
            bits.read(numbering.plane_bits)
            number = bits.read(numbering.bits)
    except ValueError:
        return None
    return Slice(kind, unit[0] & 0x1F == 5, bool(unit[0] & 0x60), number)


def gap_before(head: Slice | None, numbering: Numbering | None, before: int | None) -> tuple[int | None, str | None]:
    """The number of the last reference, with the picture of `head`, and what is missing in front of that.

    `before` is the number behind the picture in front; None: not known, so nothing can be missing.
    """
    if head is None or head.number is None or numbering is None:
        return None, None
    reference = head.number if head.reference or before is None else before
    if head.idr or before is None or numbering.follows(head.number, before):
        return reference, None
    return reference, (
        f"reference pictures in front of it are missing: its number is {head.number}, not {numbering.next(before)} "
        "(with conceal=True it is decoded all the same)"
    )


class _Bits:
    """Bits from the highest on. Raises ValueError behind the last one."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the header ends early")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        if zeros > 32:
            raise ValueError("no number is that long")
        self.read(zeros)
        return self.read(zeros + 1) - 1
