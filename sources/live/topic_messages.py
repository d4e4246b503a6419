"""Messages of a vehicle's topic over a socket: one feed carries many topics, told apart by channel.

    radar = sources.live_topic("tcp://127.0.0.1:9000", "/radar/front/points", like="drive.mcap")

What a message means is taken from a recording of the same vehicle, or of the same type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Decoded
from ..driving.cdr import Table, table_for
from ..storage.stored import PathLike, location
from ._losses import Losses
from ._recorded_topics import channels_at, type_at
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

__all__ = ["TopicMessages", "live_topic"]

_PAD = 64


@dataclass(frozen=True)
class TopicMessages(Codec):
    """Messages on `channel`, with the columns of the topic in a recording (see `cdr`); other channels are counted.

    `encoding` is how they are written (``cdr``, ``ros1``, ``json``, ``protobuf``), `type`, `notation` and `definition` what
    they mean. ``ts_event`` is the header's stamp, ``ts_recv`` when the message came. A message that does not decode is a bad
    record; a connection that was lost leaves one, ``live.gap``, and so do missing datagrams that a replay had numbered.
    Messages of topics have no numbers: one that the sender or the network loses cannot be seen, and one that comes twice is
    two rows.
    """

    name: ClassVar[str] = "topic"
    framing: ClassVar[str] = "u32"
    topic: str
    channel: int
    encoding: str
    type: str
    notation: str
    definition: str

    def table(self, source: str) -> Table:
        """What the messages become."""
        definition = self.definition.encode("latin-1")
        return table_for(
            self.topic,
            self.encoding,
            self.type,
            self.notation,
            definition,
            source=f"{source}:{self.topic}",
            format="live",
        )

    def schema(self, source: str) -> pa.Schema:
        return self.table(source).schema

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(self, context, source)

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> TopicMessages:
        """The codec of which `describe` gave `values`."""
        return cls(**values)

    @classmethod
    def like(cls, path: PathLike, topic: str) -> TopicMessages:
        """As in the recording `path` (MCAP, ROS 1 bag, rosbag2). Raises FormatError naming its topics if it lacks it."""
        place = location(path)
        found = type_at(place, topic)
        channel = channels_at(place)[topic]
        return cls(topic, channel, found.encoding, found.type, found.notation, found.definition.decode("latin-1"))


class _Session(Session):
    def __init__(self, codec: TopicMessages, context: Context, source: str) -> None:
        self._channel, self._source, self._context = codec.channel, source, context
        self._decoder = codec.table(source).decoder()
        self._losses = Losses()

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        noticed: list[BadRecord] = []
        messages: list[Arrival] = []
        others = 0
        for arrival in arrivals:
            if arrival.event:
                noticed += self._losses.heard(arrival, self._source)
            elif arrival.channel == self._channel:
                messages.append(arrival)
            else:
                others += 1
        size = sum(len(message.data) for message in messages)
        dropped = {"of other topics": others} if others else {}
        return Framed(messages, len(messages), size, noticed, dropped)

    def finish(self, first_seq: int) -> Framed | None:
        told = self._losses.ended(self._source)
        return Framed([], 0, 0, told) if told else None

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        messages: Sequence[Arrival] = payload
        if not messages:
            return Decoded(())
        lengths = np.array([len(message.data) for message in messages], np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths + (-lengths) % 8)])  # as aligned as in a file
        lease = self._context.pool.take(int(starts[-1]) + _PAD)
        data: Any = lease.array(np.uint8, int(starts[-1]) + _PAD)
        data[:] = 0
        for start, message in zip(starts.tolist(), messages, strict=False):
            data[start : start + len(message.data)] = np.frombuffer(message.data, np.uint8)
        times = np.array([message.recv_ns for message in messages], np.int64)
        found = self._decoder(data, starts[:-1].astype(np.int64), lengths, times, first_seq, self._context.pool)
        if found.copied:
            self._context.copied(found.copied)
        bad = [
            BadRecord(f"{self._source}, message {first_seq + i}", "live.decode", error, messages[i].data, first_seq + i)
            for i, error in found.bad
        ]
        return Decoded([found.batch] if found.batch.num_rows else [], bad)


def live_topic(url: str | tuple[str, ...], topic: str, *, like: PathLike, **options: Any) -> Live:
    """One topic of a feed, meaning what it does in the recording `like`; options are those of `Live`."""
    return Live(url, TopicMessages.like(like, topic), **options)
