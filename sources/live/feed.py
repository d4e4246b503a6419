"""A live feed as a source.

    feed = sources.Live("udp://239.255.1.1:26400", codec, record="day.mcap")

It ends with the run, after `most` messages (counted over resumed runs) or `duration`, or when the sender says that it is
over. What is received can be recorded on the way, losslessly and with both clocks, and read again as `sources.Recording`, to
the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from .lines import check_url, line_to
from .message_reader import Tape
from .reader import LiveReader, session_position
from .session import Codec, check_codec

__all__ = ["Live"]


@dataclass(frozen=True)
class Live(SourceSpec):
    """A feed at `url`, or the same feed on several (the A and B side): rows as `codec` makes them.

    ``udp://HOST:PORT`` (``?interface=`` name, number or address for multicast), ``tcp://HOST:PORT``
    (``?framing=lines|u16|u32|bytes``, where its sender is no replay and does not send as the codec expects), ``ws://`` and
    ``wss://`` are followed, ``http://HOST:PORT/PATH`` is listened on; an IPv6 address is in brackets. A lost
    connection is made again for up to `reconnect` after the loss; the gap is noticed by the codec or, where the feed has no
    numbers, told as a bad record. A run that goes on from a checkpoint goes on from now: what came since the snapshot is
    missing, and told so. `record` is a file (MCAP) to which everything that arrives is written. Raises GraphError for
    wrong arguments; a run raises ConnectionError if there never was a connection, FormatError for what is told apart in
    another way.
    """

    format: ClassVar[str] = "live"
    rewinds: ClassVar[bool] = False
    url: str | tuple[str, ...]
    codec: Codec
    most: int | None = None
    duration: Duration | None = None
    record: str | None = None
    reconnect: Duration = "30s"
    rollover: Duration = "23h"
    lateness: Duration = "0s"

    def __post_init__(self) -> None:
        check_codec(self.codec, "Live")
        if not self.urls:
            raise GraphError("a feed needs an address")
        for url in self.urls:
            check_url(url)
        if self.most is not None and self.most < 1:
            raise GraphError(f"most={self.most} is not above 0")
        for name in ("reconnect", "rollover", "lateness"):
            object.__setattr__(self, name, nanoseconds(getattr(self, name)))
        if self.duration is not None:
            object.__setattr__(self, "duration", nanoseconds(self.duration))

    @property
    def urls(self) -> tuple[str, ...]:
        """All its addresses."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return self.urls[0]

    @property
    def schema(self) -> pa.Schema:
        return self.codec.schema(self.name)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        reconnect, rollover = nanoseconds(self.reconnect), nanoseconds(self.rollover)
        lines = [
            line_to(
                url,
                number,
                greeting=self.codec.greeting(url),
                patience_ns=reconnect,
                rollover_ns=rollover,
                framing=self.codec.framing,
            )
            for number, url in enumerate(self.urls)
        ]
        session = self.codec.open(context, self.name, session_position(position))
        return LiveReader(
            lines,
            session,
            context,
            place=self.name,
            position=position,
            most=self.most,
            duration_ns=None if self.duration is None else nanoseconds(self.duration),
            tape=self._tape if self.record is not None and not context.rehearsing else None,
        )

    def check_target(self) -> None:
        """Raise GraphError if there is a recording at `record`, whole or cut."""
        if self.record is not None:
            from ..replay.recorder import refuse_existing

            refuse_existing(self.record)

    def _tape(self) -> Tape:
        from ..replay.recorder import Recorder

        return Recorder(str(self.record), feed=self.name, codec=self.codec)

    @property
    def block_bound(self) -> int:
        return 64 << 20
