"""Raw radar cubes as a DCA1000 card sends them: datagrams put in place, what was lost filled with zeros and told.

    cubes = sources.live_adc("udp://192.168.33.30:4098", chirps=128, samples=256, rx=4, frame_period="50ms")

A datagram is a number (u32, from 1 on), the bytes sent before it (u48), both little-endian, and up to 1,456 bytes of data.
After TI's DCA1000EVM user's guide (SPRUIJ4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.source import Decoded
from ..driving.adc import Adc
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

if TYPE_CHECKING:
    from ._adc_frames import AdcFrames

__all__ = ["AdcPackets", "live_adc"]

_FEED = "feed"


@dataclass(frozen=True)
class AdcPackets(Codec):
    """Frames of `radar`, an `Adc` whose path is not used, put together from the datagrams of a DCA1000.

    Datagrams are put where they say that they belong, in any order; one that comes twice counts once. A frame leaves when it
    is whole and those before it have left. A jump in the numbers is noted at once; what is missing of a frame is given
    up when it is `reorder` datagrams behind, or nothing has come for `wait`: its bytes are zeros, and a bad record
    ``adc.lost`` says which; frames of which nothing came are no rows, and told so. Following begins with the first whole
    frame; a frame that the feed's end cuts is a bad record.

    ``frame`` counts from the beginning of the card's recording. ``ts_event`` is the `start` of `radar` (None: when its first
    datagram came, less what that one says was sent before) plus ``frame`` times its `frame_period`, ``ts_recv`` when the
    last datagram that begins in the frame came. A card that begins a new recording is told, and counts from then on.
    """

    name: ClassVar[str] = "dca1000"
    framing: ClassVar[str] = "u32"
    radar: Adc
    reorder: int = 64
    wait: Duration = "100ms"

    def __post_init__(self) -> None:
        if self.reorder < 0:
            raise GraphError(f"reorder={self.reorder} is below 0")
        object.__setattr__(self, "wait", nanoseconds(self.wait))

    def schema(self, source: str) -> pa.Schema:
        schema = self.radar.schema
        return schema.with_metadata({**schema.metadata, b"penstock.source": source.encode(), b"penstock.clock": b"utc"})

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        from ._adc_frames import AdcFrames

        return _Session(AdcFrames(self, context, source, position or {}), self, source, context)

    def describe(self) -> Mapping[str, Any]:
        radar = {field.name: getattr(self.radar, field.name) for field in dataclasses.fields(self.radar) if field.init}
        return {"reorder": self.reorder, "wait": self.wait, "radar": radar}

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> AdcPackets:
        """The codec of which `describe` gave `values`."""
        return cls(Adc(**values["radar"]), values["reorder"], values["wait"])


class _Session(Session):
    def __init__(self, frames: AdcFrames, codec: AdcPackets, source: str, context: Context) -> None:
        self._frames, self._wait, self._context = frames, nanoseconds(codec.wait), context
        self._radar, self._columns = codec.radar, ColumnLayout(codec.schema(source))

    def position(self) -> Mapping[str, Any]:
        return self._frames.save()

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        for arrival in arrivals:
            if arrival.event:
                self._frames.heard(arrival.event)
            else:
                self._frames.take(arrival.data, arrival.recv_ns)
        return self._framed(sum(len(arrival.data) for arrival in arrivals))

    def idle(self, quiet_ns: int, first_seq: int) -> Framed | None:
        if quiet_ns >= self._wait:
            self._frames.give_up()
        return self._framed(0)

    def finish(self, first_seq: int) -> Framed | None:
        self._frames.finish()
        return self._framed(0)

    def _framed(self, nbytes: int) -> Framed:
        made = self._frames.made()
        return Framed(made, len(made.frames) + len(made.bad), nbytes, made.noticed, made.dropped)

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        from ._adc_frames import decode_frames

        return decode_frames(payload, first_seq, self._radar, self._columns, self._context)


def live_adc(url: str | tuple[str, ...], *, reorder: int = 64, wait: Duration = "100ms", **options: Any) -> Live:
    """Frames of a raw radar cube from a DCA1000; options of `Adc` (`chirps`, `samples`, `rx`, ...) and of `Live`."""
    of_feed = {field.name for field in dataclasses.fields(Live)} - {"url", "codec"}
    live = {key: options.pop(key) for key in list(options) if key in of_feed}
    return Live(url, AdcPackets(Adc(_FEED, **options), reorder, wait), **live)
