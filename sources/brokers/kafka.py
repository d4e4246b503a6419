"""Topics of Kafka, and of what speaks its protocol (Redpanda, WarpStream).

    ticks = sources.Kafka("broker:9092", "ticks", JsonMessages(Ndjson("", columns={"price": "p:float64"})), end="now")

Offsets are positions of the run: partitions are assigned, not shared out by a group, and where to go on is what Penstock's
checkpoint says, never what a group has committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from ...pipeline.context import Context
from ...pipeline.duration import nanoseconds
from ...pipeline.errors import GraphError, MissingExtraError
from ...pipeline.source import Position
from ..live.session import Codec, check_codec
from ._log_reader import Log
from ._log_source import LogSource

__all__ = ["Kafka"]

#: Options of librdkafka that decide which messages are read; they follow from the arguments.
_OURS = ("bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset", "enable.partition.eof")


@dataclass(frozen=True)
class Kafka(LogSource):
    """Messages of `topic`, each one payload, as rows of `codec`; several partitions are one source.

    Parameters
    ----------
    servers
        ``host:port``, several with commas.
    topic, partitions
        What to read; None: all partitions, those added later (seen within 10 s) from their beginning.
    start
        ``"earliest"`` or ``"latest"``, for a run that does not resume.
    end
        None: follow; ``"now"``: up to where each partition ends when the run first begins.
    most, duration
        End after that many messages (counted over a resumed run), or that long (counted anew).
    group
        A group that is told how far reading is, once a second, for lag monitors; it is never read.
    options
        Further configuration of librdkafka, such as ``security.protocol``.
    reconnect
        How long to wait for a broker, at the start or after all were lost. Nothing is lost meanwhile.
    record
        A file (MCAP) to which what arrives is written, read again as `sources.Recording`.

    ``ts_recv`` is the message's header ``ts_recv`` (ns in decimal) if it has one, else the time that Kafka keeps (ms),
    else the time of reading. Messages of one partition come in order; with ``end="now"`` partitions are merged by
    (Kafka's time, partition, offset), the same in every run, otherwise as they come. The codec's channel is the partition
    unless the codec reads one channel only. Messages without a value are counted as dropped.

    Offsets that retention has deleted before they were read are one bad record ``broker.gap`` that says which. Offsets
    that compaction or transactions leave out are no gap. Exactness of a resumed run is that of the codec's session: rows
    of JSON, raw, topic and crypto messages go on as they were; MoldUDP64 packets that came out of order and waited for
    others at the moment of the checkpoint are told as missing. Nothing is fetched for a codec: snapshots of books must be
    in the topic.

    Raises GraphError for wrong arguments, MissingExtraError without confluent-kafka; a run raises ConnectionError when the
    brokers are away for longer than `reconnect` and CheckpointError when the topic ends before the checkpoint's offset.
    """

    format: ClassVar[str] = "kafka"
    servers: str
    topic: str
    codec: Codec
    partitions: Sequence[int] | None = field(default=None, kw_only=True)
    group: str | None = field(default=None, kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_codec(self.codec, "Kafka")
        if not self.servers or not self.topic:
            raise GraphError("a topic needs servers and a name", expected="Kafka('host:9092', 'topic', codec)")
        if ours := sorted(set(self.options) & set(_OURS)):
            raise GraphError(f"option {ours[0]!r} follows from the arguments of Kafka; leave it out")
        if self.partitions is not None:
            chosen = tuple(sorted({int(partition) for partition in self.partitions}))
            if not chosen or chosen[0] < 0:
                raise GraphError(f"{self.partitions=} are no partitions", expected="numbers from 0, at least one")
            object.__setattr__(self, "partitions", chosen)

    @property
    def name(self) -> str:
        return f"kafka:{self.topic}"

    @property
    def feed(self) -> Codec:
        return self.codec

    def log(self, context: Context, position: Position | None) -> Log:
        """See `LogSource.log`."""
        if find_spec("confluent_kafka") is None:
            raise MissingExtraError("reading from Kafka", "confluent-kafka", "brokers")
        from ._kafka_log import KafkaLog

        return KafkaLog(self, context, position, patience_ns=nanoseconds(self.reconnect))
