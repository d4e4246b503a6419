"""Point Cloud Library's .pcd files with binary data: the header, and the points as a numpy record array.

Spec: The PCD (Point Cloud Data) file format, version 0.7 (pointclouds.org).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PcdHeader", "pcd_header", "pcd_points"]

_MOST_HEADER = 1 << 13
_KINDS = {"F": {4, 8}, "I": {1, 2, 4, 8}, "U": {1, 2, 4, 8}}
_KNOWN = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")


@dataclass(frozen=True, slots=True)
class PcdHeader:
    """Where each field of a point is (`dtype`), how many points there are, and where they begin."""

    dtype: np.dtype[Any]
    points: int
    offset: int


def pcd_header(data: bytes | memoryview) -> PcdHeader:
    """The header of a file that begins with `data`. Raises ValueError for one that is damaged or not ``DATA binary``."""
    head = bytes(data[:_MOST_HEADER])
    told: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in told:
        end = head.find(b"\n", at)
        if end < 0:
            raise ValueError("its .pcd header has no DATA line")
        line, at = head[at:end].decode("latin-1").strip(), end + 1
        if not line or line.startswith("#"):
            continue
        word, *values = line.split()
        if word not in _KNOWN or word in told:
            raise ValueError(f"its .pcd header has the line {line[:40]!r}")
        told[word] = values
    if told["DATA"] != ["binary"]:
        raise ValueError(f"its points are stored as {' '.join(told['DATA'])[:30]!r}; 'binary' is read")
    names, kinds = told.get("FIELDS", []), told.get("TYPE", [])
    sizes = [_number(text) for text in told.get("SIZE", [])]
    counts = [_number(text) for text in told.get("COUNT", ["1"] * len(names))]
    if not names or not len(names) == len(kinds) == len(sizes) == len(counts):
        raise ValueError("FIELDS, SIZE, TYPE and COUNT of its .pcd header do not have as many values each")
    offset, offsets, formats = 0, [], []
    for kind, size, count in zip(kinds, sizes, counts, strict=True):
        if size not in _KINDS.get(kind, ()) or not 1 <= count <= 4096:
            raise ValueError(f"its .pcd header has a field of {count} {kind} of {size} bytes")
        offsets.append(offset)
        formats.append(f"<{kind.lower()}{size}" if count == 1 else f"({count},)<{kind.lower()}{size}")
        offset += size * count
    if len(set(names)) < len(names):
        names = [f"{name}/{i}" if names.index(name) < i else name for i, name in enumerate(names)]
    if len(set(names)) < len(names):
        raise ValueError("two fields of its .pcd header have the same name")
    points = _number(" ".join(told.get("POINTS", [])))
    if points != _number(" ".join(told.get("WIDTH", []))) * _number(" ".join(told.get("HEIGHT", []))):
        raise ValueError("WIDTH, HEIGHT and POINTS of its .pcd header do not agree")
    point: np.dtype[Any] = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})
    return PcdHeader(point, points, at)


def pcd_points(data: bytes | memoryview) -> npt.NDArray[Any]:
    """The points of a whole file as a view of `data`. Raises ValueError if it does not hold as many as it says."""
    header = pcd_header(data)
    need, have = header.points * header.dtype.itemsize, len(data) - header.offset
    if have < need:
        raise ValueError(f"it is cut: {have} of the {need} bytes of its {header.points} points are there")
    if have > need:
        raise ValueError(f"it has {have - need} bytes behind its {header.points} points")
    return np.frombuffer(data, header.dtype, header.points, header.offset)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"its .pcd header has {text[:20]!r} for a number")
    return int(text)
