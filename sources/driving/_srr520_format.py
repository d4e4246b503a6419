"""Continental SRR520 lists, which come as CAN-FD frames: how they are put together, checked, and what their bits mean.

A packet is the CAN id (4 bytes, big-endian) and the frame's data. A list is a header, a fixed number of elements that
count up, and a CRC over all of them. After tier4/nebula (Apache-2.0), continental_srr520_decoder.cpp; the deviation of an
object's speed in x has the two low bits that nebula drops.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .cdr import POINT

__all__ = [
    "DETECTION",
    "LIST_IDS",
    "OBJECT",
    "Assembler",
    "RadarList",
    "detection_columns",
    "detection_fields",
    "object_columns",
    "object_fields",
    "point_columns",
]

Array = npt.NDArray[Any]

#: By CAN id of the header: what the list is, the id of its elements, how many there are, what its CRC is numbered.
_LISTS = {900: ("near", 901, 50, 0), 1100: ("hrr", 1101, 20, 1), 1200: ("objects", 1201, 20, 2)}
_ELEMENTS = {element: kind for kind, element, _, _ in _LISTS.values()}
_CRCS = {number: kind for kind, _, _, number in _LISTS.values()}
_COUNTS = {kind: count for kind, _, count, _ in _LISTS.values()}
_CRC = 800
#: How frames of lists begin.
LIST_IDS = frozenset(number.to_bytes(4, "big") for number in (*_LISTS, *_ELEMENTS, _CRC))
_OTHERS = {700: "sensor status", 53: "time synchronisation", 600: "vehicle dynamics", 601: "sensor configuration"}
_HEADER_BYTES, _ELEMENT_BYTES, _CRC_BYTES = 32, 64, 4

_HEAD = [("internal_us", ">u4"), ("seconds", ">u4"), ("nanoseconds", ">u4"), ("sync", "u1"), ("signal_status", "u1")]
_COUNTERS = [("sequence_counter", "u1"), ("cycle_counter", ">u4")]
_SCAN_HEADER = np.dtype(
    [*_HEAD, *_COUNTERS, ("v_ambiguous", ">u2"), ("max_range", ">u2"), ("count", ">u2"), ("reserved", "V7")]
)
_OBJECT_HEADER = np.dtype(
    [
        *_HEAD,
        *_COUNTERS,
        ("ego_vx", ">u2"),
        ("ego_yaw_rate", ">u2"),
        ("motion_type", "u1"),
        ("count", "u1"),
        ("rest", "V7"),
    ]
)

#: A detection: m, rad, m/s (positive: away), dBsm, dB; `pdh` are the flags pdh00 to pdh04 from bit 0.
DETECTION = pa.struct(
    [
        *((name, pa.float32()) for name in ("range", "azimuth", "range_rate", "rcs", "snr")),
        ("pdh", pa.uint8()),
    ]
)
#: Start bit, bits, scale and offset of the numbers of an object, as they are written: first bit first.
_OBJECT_BITS: dict[str, tuple[int, int, float, float]] = {
    "x": (8, 16, 0.009155553, -300.0),
    "y": (24, 16, 0.009155553, -300.0),
    "vx": (40, 14, 0.009156391, -75.0),
    "vy": (54, 14, 0.009156391, -75.0),
    "ax": (68, 10, 0.019569472, -10.0),
    "ay": (78, 10, 0.019569472, -10.0),
    "x_std": (88, 14, 0.001831166, 0.0),
    "y_std": (102, 14, 0.001831166, 0.0),
    "vx_std": (116, 14, 0.001831166, 0.0),
    "vy_std": (130, 14, 0.001831166, 0.0),
    "ax_std": (144, 14, 0.001831166, 0.0),
    "ay_std": (158, 14, 0.001831166, 0.0),
    "length": (172, 12, 0.007326007, 0.0),
    "width": (184, 12, 0.007326007, 0.0),
    "orientation": (196, 12, 0.001534729, -3.14159),
    "rcs": (208, 12, 0.024425989, -50.0),
    "existence": (220, 4, 6.666666667, 0.0),
}
#: An object: m, m/s and m/s2 over ground, rad, dBsm, existence in %; `age` in cycles.
OBJECT = pa.struct(
    [
        ("id", pa.uint8()),
        *((name, pa.float32()) for name in _OBJECT_BITS),
        ("age", pa.uint16()),
        ("box_valid", pa.uint8()),
        ("status", pa.uint8()),
    ]
)
_OBJECT_SIZE, _DETECTION_SIZE = 31, 6


@dataclass(slots=True)
class RadarList:
    """A list under way or complete: the number and data of its header, its elements, and what is wrong with it."""

    kind: str
    number: int
    header: bytes
    packets: list[bytes]
    elements: list[bytes] = field(default_factory=list)
    error: str = ""

    @property
    def count(self) -> int:
        """Detections or objects, as the header says."""
        return self.header[24] if self.kind == "objects" else int.from_bytes(self.header[23:25], "big")

    @property
    def room(self) -> int:
        """How many the elements can hold."""
        return _COUNTS[self.kind] * (2 if self.kind == "objects" else 10)

    def time(self) -> tuple[int, bool]:
        """The sensor's time in ns, and whether it says that it is in step with the network's clock."""
        seconds, ns = int.from_bytes(self.header[4:8], "big"), int.from_bytes(self.header[8:12], "big")
        return seconds * 10**9 + ns, self.header[12] == 1 and ns < 10**9


class Assembler:
    """Puts lists together from packets in the order of their arrival; lists of different kinds may be interleaved."""

    def __init__(self) -> None:
        self._open: dict[str, RadarList] = {}

    @property
    def under_way(self) -> tuple[RadarList, ...]:
        """Lists that are not complete."""
        return tuple(self._open.values())

    def feed(self, number: int, packet: bytes) -> Iterator[RadarList | tuple[str, str]]:
        """Lists that `packet` ends, with what is wrong in `error`, or a pair: ``bad`` or ``other``, and why or what."""
        can_id, data = int.from_bytes(packet[:4], "big"), packet[4:]
        if len(packet) >= 4 and can_id in _LISTS:
            kind = _LISTS[can_id][0]
            if len(data) != _HEADER_BYTES:
                yield "bad", f"a header of {kind} has {_HEADER_BYTES} bytes, not {len(data)}"
                return
            yield from self._ended(kind, "the next one begins before it is complete")
            self._open[kind] = RadarList(kind, number, data, [packet])
        elif can_id in _ELEMENTS and len(packet) >= 4:
            yield from self._element(_ELEMENTS[can_id], packet)
        elif can_id == _CRC and len(data) == _CRC_BYTES and data[0] in _CRCS:
            yield from self._crc(_CRCS[data[0]], packet)
        elif can_id in _OTHERS:
            yield "other", _OTHERS[can_id]
        else:
            yield "bad", f"no packet of an SRR520: CAN id {can_id} with {max(0, len(data))} bytes"

    def finish(self) -> Iterator[RadarList]:
        """Lists that nothing more comes for."""
        for kind in sorted(self._open):
            yield from self._ended(kind, "the recording ends before it is complete")

    def _ended(self, kind: str, why: str) -> Iterator[RadarList]:
        found = self._open.pop(kind, None)
        if found is not None:
            found.error = found.error or f"{len(found.elements)} of {_COUNTS[kind]} elements: {why}"
            yield found

    def give_up(self, found: RadarList) -> Iterator[RadarList]:
        """End a list that is under way: others have long been complete behind it."""
        yield from self._ended(found.kind, "its rest has not come")

    def _element(self, kind: str, packet: bytes) -> Iterator[tuple[str, str]]:
        data, found = packet[4:], self._open.get(kind)
        if found is None:
            yield "bad", f"an element of {kind} without a header in front of it"
            return
        if len(found.elements) > _COUNTS[kind]:
            yield "bad", f"an element of {kind} behind the last one"
            return
        found.packets.append(packet)
        at = len(found.elements)
        if len(data) != _ELEMENT_BYTES:
            found.error = found.error or f"element {at} of {kind} has {len(data)} bytes, not {_ELEMENT_BYTES}"
        elif at >= _COUNTS[kind]:
            found.error = found.error or f"one element more than the {_COUNTS[kind]} of {kind}"
        elif data[62] != at or data[63] != found.header[14]:
            told, wanted = (data[62], data[63]), (at, found.header[14])
            found.error = found.error or f"element {at} of {kind} counts {told} where {wanted} is due: some were lost"
        found.elements.append(data)

    def _crc(self, kind: str, packet: bytes) -> Iterator[RadarList | tuple[str, str]]:
        found = self._open.pop(kind, None)
        if found is None:
            yield "bad", f"a CRC of {kind} without a list in front of it"
            return
        told = int.from_bytes(packet[5:7], "big")
        crc = binascii.crc_hqx(b"".join([found.header, *found.elements]), 0xFFFF)
        found.packets.append(packet)
        if not found.error:
            if len(found.elements) != _COUNTS[kind]:
                found.error = f"{len(found.elements)} of {_COUNTS[kind]} elements of {kind}"
            elif crc != told:
                found.error = f"its CRC is {crc:#06x}, not {told:#06x} as transmitted"
            elif found.count > found.room:
                found.error = f"{found.count} {kind} where there is room for {found.room}"
        yield found


def _fragments(lists: Sequence[RadarList], size: int, each: int) -> tuple[list[int], Array]:
    counts = [found.count for found in lists]
    parts = []
    for found, count in zip(lists, counts, strict=True):
        elements = np.frombuffer(b"".join(found.elements), np.uint8).reshape(-1, _ELEMENT_BYTES)
        parts.append(elements[:, : size * each].reshape(-1, size)[:count])
    return counts, np.concatenate(parts) if parts else np.empty((0, size), np.uint8)


def _bits(fragments: Array, start: int, bits: int) -> Array:
    """The big-endian number of `bits` bits from bit `start` (0: the highest of the first byte) of every fragment."""
    first, last = start // 8, (start + bits - 1) // 8
    value = np.zeros(len(fragments), np.uint64)
    for byte in range(first, last + 1):
        value = value << np.uint64(8) | fragments[:, byte]
    return (value >> np.uint64(8 * (last + 1) - start - bits)) & np.uint64((1 << bits) - 1)


def _scaled(fragments: Array, start: int, bits: int, scale: float, offset: float) -> Array:
    return (scale * _bits(fragments, start, bits) + offset).astype(np.float32)


def _detections(lists: Sequence[RadarList]) -> tuple[list[int], dict[str, Array]]:
    counts, found = _fragments(lists, _DETECTION_SIZE, 10)
    return counts, {
        "range": _scaled(found, 0, 12, 0.024420024, 0.0),
        "azimuth": _scaled(found, 12, 9, 0.006159986, -1.570796327),
        "range_rate": _scaled(found, 21, 11, 0.014662757, -15.0),
        "rcs": _scaled(found, 32, 7, 0.476190476, -40.0),
        "snr": _scaled(found, 44, 4, 1.7, 11.0),
        "pdh": sum((_bits(found, 39 + i, 1) << np.uint64(i) for i in range(1, 5)), _bits(found, 39, 1)).astype(
            np.uint8
        ),
    }


def point_columns(lists: Sequence[RadarList]) -> dict[str, pa.Array]:
    """`n_points` and `points` of `radar.scan`; z and track_id are null. `flags`: pdh00 to pdh04 from bit 0, bit 8: HRR."""
    from ._radar_reader import lists as as_lists

    counts, found = _detections(lists)
    rows = len(found["range"])
    azimuth, distance = found["azimuth"].astype(np.float64), found["range"].astype(np.float64)
    far = np.repeat([0x100 if one.kind == "hrr" else 0 for one in lists], counts).astype(np.uint16)
    children = [
        pa.array((np.cos(azimuth) * distance).astype(np.float32)),
        pa.array((np.sin(azimuth) * distance).astype(np.float32)),
        pa.nulls(rows, pa.float32()),
        pa.array(found["range_rate"]),
        pa.array(found["rcs"]),
        pa.array(found["snr"]),
        pa.nulls(rows, pa.uint32()),
        pa.array(found["pdh"].astype(np.uint16) | far),
    ]
    return {"n_points": pa.array(counts, pa.uint32()), "points": as_lists(POINT, counts, children)}


def _heads(lists: Sequence[RadarList], layout: np.dtype[Any]) -> dict[str, pa.Array]:
    heads = np.frombuffer(b"".join(one.header for one in lists), layout)
    plain = ("internal_us", "sync", "signal_status", "sequence_counter", "cycle_counter")
    columns = {name: pa.array(heads[name].astype(heads[name].dtype.newbyteorder("="))) for name in plain}
    if layout is _SCAN_HEADER:
        ambiguous = np.float32(0.003051851) * heads["v_ambiguous"].astype(np.float32) + np.float32(-100)
        columns["v_ambiguous"] = pa.array(ambiguous)
        columns["max_range"] = pa.array(np.float32(0.1) * heads["max_range"].astype(np.float32))
    else:
        columns["ego_vx"] = pa.array((0.003051851 * heads["ego_vx"] - 100.0).astype(np.float32))
        columns["ego_yaw_rate"] = pa.array((9.58766e-05 * heads["ego_yaw_rate"] - 3.14159).astype(np.float32))
        columns["motion_type"] = pa.array(heads["motion_type"])
    return columns


_HEAD_FIELDS = [
    ("internal_us", pa.uint32()),
    *((name, pa.uint8()) for name in ("sync", "signal_status", "sequence_counter")),
    ("cycle_counter", pa.uint32()),
]


def detection_fields() -> list[tuple[str, pa.DataType]]:
    """The columns of `detection_columns`, in order."""
    head = [("mode", pa.dictionary(pa.int8(), pa.utf8())), *_HEAD_FIELDS]
    head += [("v_ambiguous", pa.float32()), ("max_range", pa.float32()), ("n_detections", pa.uint32())]
    return [*head, ("detections", pa.list_(DETECTION))]


def detection_columns(lists: Sequence[RadarList]) -> dict[str, pa.Array]:
    """All that detection lists say, `mode` near or hrr among it."""
    from ._radar_reader import lists as as_lists

    counts, found = _detections(lists)
    mode = pa.array([one.kind for one in lists]).dictionary_encode().cast(detection_fields()[0][1])
    children = [pa.array(found[name]) for name in DETECTION.names]
    return {
        "mode": mode,
        **_heads(lists, _SCAN_HEADER),
        "n_detections": pa.array(counts, pa.uint32()),
        "detections": as_lists(DETECTION, counts, children),
    }


def object_fields() -> list[tuple[str, pa.DataType]]:
    """The columns of `object_columns`, in order."""
    ego = [("ego_vx", pa.float32()), ("ego_yaw_rate", pa.float32()), ("motion_type", pa.uint8())]
    return [*_HEAD_FIELDS, *ego, ("n_objects", pa.uint32()), ("objects", pa.list_(OBJECT))]


def object_columns(lists: Sequence[RadarList]) -> dict[str, pa.Array]:
    """`objects` of `radar.objects`, and what the header says."""
    from ._radar_reader import lists as as_lists

    counts, found = _fragments(lists, _OBJECT_SIZE, 2)
    children = [
        pa.array(np.ascontiguousarray(found[:, 0])),
        *(pa.array(_scaled(found, *place)) for place in _OBJECT_BITS.values()),
        pa.array(_bits(found, 224, 16).astype(np.uint16)),
        pa.array(_bits(found, 247, 1).astype(np.uint8)),
        pa.array(_bits(found, 245, 2).astype(np.uint8)),
    ]
    return {
        **_heads(lists, _OBJECT_HEADER),
        "n_objects": pa.array(counts, pa.uint32()),
        "objects": as_lists(OBJECT, counts, children),
    }
