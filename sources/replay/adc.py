"""Raw radar cubes as the datagrams of a DCA1000 card.

A datagram is a number (u32, from 1 on), the bytes sent before it (u48), both little-endian, and up to 1,456 bytes of data:
the card sends what the converters give as one run of bytes, whatever the frames. A datagram is due when its last byte was
sampled: the numbers of a frame come evenly while its chirps run (`chirp_period` times `chirps`), or over the whole
`frame_period` where that is not known. After TI's DCA1000EVM user's guide (SPRUIJ4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...pipeline.duration import nanoseconds
from ...pipeline.errors import FormatError
from ..storage.unpack import open_feed
from .message import Message, Playable

__all__ = ["adc_playable"]

_DATA = 1456
_AT_ONCE = 64


def adc_playable(path: str, **options: Any) -> Playable:
    """The file `path` in datagrams; `options` are those of `Adc`, of which the sizes and `frame_period` must be there."""
    from ..driving.adc import Adc

    try:
        spec = Adc(path, **options)
    except TypeError as error:
        wrong = str(error).partition(") ")[2] or str(error)
        raise FormatError(f"{path}: a raw cube does not say what it is: {wrong}") from None
    start, period, size = int(spec.start or 0), nanoseconds(spec.frame_period), spec.frame_bytes
    active = period if spec.chirp_period is None else min(period, round(spec.chirp_period * spec.chirps * 1e9))

    def messages() -> Iterator[Message]:
        feed = open_feed(path)
        number = done = 0
        view = memoryview(bytearray(_AT_ONCE * _DATA))
        try:
            while count := feed.fill(view):
                for at in range(0, count, _DATA):
                    data = bytes(view[at : min(at + _DATA, count)])
                    number += 1
                    head = (number & 0xFFFFFFFF).to_bytes(4, "little") + (done % (1 << 48)).to_bytes(6, "little")
                    done += len(data)
                    frame, inside = divmod(done - 1, size)
                    yield Message(start + frame * period + (inside + 1) * active // size, head + data)
        finally:
            feed.close()

    return Playable(messages, note=f"DCA1000 datagrams of up to {_DATA} bytes of data, frames of {size} bytes")
