"""What becomes of the rows of a stream of encoded video: pictures, damage, and losses by reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..pipeline.errors import MissingExtraError

__all__ = [
    "AFTER_DAMAGE",
    "BEFORE_FIRST",
    "LEADING",
    "NO_PICTURE",
    "ONLY_SETS",
    "WITH_DAMAGE",
    "Bad",
    "Event",
    "Lost",
    "Picture",
    "Unit",
    "av_library",
    "decoder_errors",
]

BEFORE_FIRST = "units in front of the first key frame"
AFTER_DAMAGE = "units between a damaged one and the next key frame"
WITH_DAMAGE = "units lost with a damaged one"
LEADING = "units that lead a key frame at which decoding began"
NO_PICTURE = "units that no picture came of"
ONLY_SETS = "units of parameters without a picture"


def av_library() -> Any:
    """The `av` module. Raises MissingExtraError."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("decoding video", "av", "video") from error
    return av


def decoder_errors() -> tuple[type[Exception], ...]:
    """What a decoder raises. One that could not be opened is an unknown one to version 19, a ValueError."""
    return (av_library().FFmpegError, ValueError)


@dataclass(slots=True, eq=False)
class Unit:
    """A row of a stream: its encoded bytes, and the row (`index` of `batch`) whose columns its picture gets."""

    number: int
    data: bytes
    batch: pa.RecordBatch | None
    index: int
    time: int


@dataclass(slots=True)
class Picture:
    """A decoded picture (an ``av.VideoFrame``) and the row it belongs to."""

    batch: pa.RecordBatch
    index: int
    frame: Any


@dataclass(slots=True)
class Lost:
    """`count` units give no picture."""

    reason: str
    count: int


@dataclass(slots=True)
class Bad:
    """A unit that cannot be decoded."""

    unit: Unit
    error: str


Event = Picture | Lost | Bad
