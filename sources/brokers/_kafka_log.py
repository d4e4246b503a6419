"""Partitions of a topic, assigned at exact offsets, and what happens to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ...pipeline.context import Context
from ...pipeline.duration import readable_duration
from ...pipeline.errors import CheckpointError, FormatError, GraphError
from ...pipeline.source import Position
from ..live.arrival import Arrival
from ._asking import Asking
from ._gaps import gap_arrivals
from ._kafka_errors import OUT_OF_RANGE, PASSING, Missing, text_of
from ._kafka_merge import InTimeOrder, Piece
from ._log_reader import Polled
from ._stamps import stamp_of

if TYPE_CHECKING:
    from .kafka import Kafka

__all__ = ["KafkaLog"]

_ANSWER_S = 1.0
_WAIT_S = 0.1
_MESSAGES = 1024
#: How often to look whether there are brokers while all are lost, whether there are more partitions, and to tell the group.
_LOST_NS, _GROWN_NS, _COMMIT_NS = 10**9, 10 * 10**9, 10**9
#: A partition that is ahead of the others by as many bytes waits for them.
_AHEAD = 4 << 20
Answer = TypeVar("Answer")


class KafkaLog:
    """See `Log`. Messages that were received but not given by `poll` are not in the position."""

    def __init__(self, spec: Kafka, context: Context, position: Position | None, *, patience_ns: int) -> None:
        self._spec, self._context, self._position, self._patience = spec, context, position, patience_ns
        self._place = spec.name
        self._channel: int | None = getattr(spec.codec, "channel", None)
        self._asking = Asking(context, f"{spec.name} at {spec.servers}", patience_ns, self._why)
        self._consumer: Any = None
        self._next: dict[int, int] = {}
        self._ends: dict[int, int] | None = None
        self._stamps: dict[int, int] = {}
        self._order: InTimeOrder | None = None
        self._ready: deque[Piece] = deque()
        self._paused: list[int] = []
        self._lost: int | None = None
        self._reason = ""
        self._probe: Future[list[int]] | None = None
        self._probed = self._committed = context.clock.monotonic_ns()

    def begin(self) -> None:
        """See `Log.begin`."""
        ours = {
            "bootstrap.servers": self._spec.servers,
            "group.id": self._spec.group or "penstock",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "error_cb": self._heard,
        }
        chosen = {"log_level": 0, "fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 16384, **self._spec.options}
        try:
            self._consumer = Consumer({**chosen, **ours})
        except KafkaException as error:
            raise GraphError(f"Kafka's client does not take its options: {text_of(error)}") from None
        saved = self._position
        known = self._answer(self._partitions)
        if saved is not None and saved["ends"] is not None:
            self._ends = {int(partition): int(end) for partition, end in saved["ends"].items()}
            known = sorted(self._ends)
        marks = {partition: self._marks(partition) for partition in known}
        if saved is None and self._spec.end == "now":
            self._ends = {partition: high for partition, (_, high) in marks.items()}
        if self._ends is not None:
            self._order = InTimeOrder(self._ends)
        for partition, (low, high) in marks.items():
            latest = saved is None and self._spec.start == "latest"
            self._next[partition] = high if latest else low
            if saved is not None and str(partition) in saved["partitions"]:
                self._next[partition] = int(saved["partitions"][str(partition)])
            self._assign(partition, self._next[partition], low, high)

    def _partitions(self) -> list[int]:
        topic = self._consumer.list_topics(self._spec.topic, timeout=_ANSWER_S).topics[self._spec.topic]
        if topic.error is not None:
            raise Missing(f"topic {self._spec.topic!r}: {topic.error.str()}")
        wanted = sorted(topic.partitions) if self._spec.partitions is None else list(self._spec.partitions)
        if missing := [partition for partition in wanted if partition not in topic.partitions]:
            raise Missing(f"topic {self._spec.topic!r} has no partition {missing[0]}")
        return wanted

    def _marks(self, partition: int) -> tuple[int, int]:
        """First offset that is there, and the one behind the last."""

        def ask() -> tuple[int, int]:
            where = TopicPartition(self._spec.topic, partition)
            found = self._consumer.get_watermark_offsets(where, timeout=_ANSWER_S)
            if found is None:
                raise Missing(f"no offsets of partition {partition} came in time")
            low, high = found
            return int(low), int(high)

        return self._answer(ask)

    def _answer(self, call: Callable[[], Answer]) -> Answer:
        """What the brokers answer, asked again for as long as patience lasts."""
        try:
            return self._asking.until(call, (KafkaException, Missing), self._consumer.poll)
        except (KafkaException, Missing) as error:
            raise ConnectionError(self._away(error)) from None

    def _away(self, error: Exception) -> str:
        waited = f" within {readable_duration(self._patience)}" if self._patience else ""
        return f"{self._place}: no answer from Kafka at {self._spec.servers}{waited}: {self._why(error)}"

    def _why(self, error: Exception) -> str:
        return str(error) if isinstance(error, Missing) else self._reason or text_of(error)

    def _assign(self, partition: int, offset: int, low: int, high: int) -> None:
        """Read `partition` from `offset` on, or from what is left of it."""
        end = None if self._ends is None else self._ends[partition]
        if offset > high:
            raise CheckpointError(
                f"{self._place}: partition {partition} ends at offset {high}, before offset {offset} of the checkpoint: "
                "the topic was made anew; begin without the checkpoint"
            )
        if offset < low and (end is None or offset < end):
            until = low if end is None else min(low, end)
            what = f"offsets {offset} to {until - 1} of partition {partition} were deleted before they were read"
            arrivals = tuple(gap_arrivals(self._context.clock.now_ns(), what))
            self._add(Piece(self._stamps.get(partition, -1), partition, until, arrivals))
        if end is not None and max(offset, low) >= end:
            self._end(partition)
            return
        self._consumer.incremental_assign([TopicPartition(self._spec.topic, partition, max(offset, low))])

    def _add(self, piece: Piece) -> None:
        if self._order is None:
            self._ready.append(piece)
        else:
            self._order.add(piece)

    def _end(self, partition: int) -> None:
        if self._order is not None:
            self._order.end(partition)

    def poll(self, most: int, most_bytes: int) -> Polled:
        """See `Log.poll`."""
        polled = Polled()
        if not self._give(polled, most, most_bytes):
            received = self._receive(most_bytes)
            self._give(polled, most, most_bytes)
            self._watch(received)
        polled.ended = self._order is not None and self._order.ended
        return polled

    def _give(self, polled: Polled, most: int, most_bytes: int) -> bool:
        """Move pieces whose turn it is; False if there were none."""
        size = messages = 0
        while messages < most and size < most_bytes:
            piece = self._order.pop() if self._order is not None else self._ready.popleft() if self._ready else None
            if piece is None:
                break
            self._next[piece.partition] = piece.next
            polled.arrivals += piece.arrivals
            size += piece.size
            messages += len(piece.arrivals) == 1
            if not piece.arrivals:
                polled.dropped["without a value"] = polled.dropped.get("without a value", 0) + 1
        return size > 0

    def _receive(self, most_bytes: int) -> bool:
        self._balance()
        size, came = 0, False
        messages = self._consumer.consume(1, _WAIT_S)
        while messages:
            for message in messages:
                if (error := message.error()) is not None:
                    self._failed(message, error)
                    continue
                came = True
                size += self._take(message)
            messages = self._consumer.consume(_MESSAGES, 0) if size < most_bytes else ()
        return came

    def _take(self, message: Any) -> int:
        partition, offset, data = message.partition(), message.offset(), message.value()
        if self._ends is not None and self._order is not None:
            if not self._order.is_open(partition):
                return 0
            if offset >= self._ends[partition]:
                self._end(partition)
                return 0
        kind, milliseconds = message.timestamp()
        self._stamps[partition] = milliseconds if kind else -1
        recv = stamp_of(next((value for key, value in message.headers() or () if key == "ts_recv"), None))
        if recv is None:
            recv = milliseconds * 1_000_000 if kind else self._context.clock.now_ns()
        channel = partition if self._channel is None else self._channel
        arrivals = () if data is None else (Arrival(recv, bytes(data), 0, channel),)
        self._add(Piece(self._stamps[partition], partition, offset + 1, arrivals))
        if self._ends is not None and offset + 1 >= self._ends[partition]:
            self._end(partition)
        return len(data or b"") + 100

    def _failed(self, message: Any, error: Any) -> None:
        partition = message.partition()
        if error.code() == KafkaError._PARTITION_EOF:
            if self._ends is not None and message.offset() >= self._ends[partition]:
                self._end(partition)
        elif error.code() in OUT_OF_RANGE:
            if self._order is not None and not self._order.is_open(partition):
                return
            self._consumer.incremental_unassign([TopicPartition(self._spec.topic, partition)])
            self._assign(partition, self._behind(partition), *self._marks(partition))
        elif not (error.retriable() or error.code() in PASSING):
            where = f"partition {partition}, offset {message.offset()}: " if partition >= 0 else ""
            raise FormatError(f"{self._place}: {where}{error.str()}")

    def _behind(self, partition: int) -> int:
        """The offset behind all that was received of `partition`."""
        waiting: Iterable[Piece] = self._order.waiting(partition) if self._order is not None else self._ready
        return max([self._next[partition], *(piece.next for piece in waiting if piece.partition == partition)])

    def _balance(self) -> None:
        """Hold back partitions that are far ahead of the others, so that what waits stays small."""
        if self._order is None:
            return
        ahead = [partition for partition in self._next if self._order.held(partition) > _AHEAD]
        ahead = [partition for partition in ahead if self._order.is_open(partition)]
        if ahead != self._paused:
            self._consumer.resume([TopicPartition(self._spec.topic, p) for p in self._paused if p not in ahead])
            self._consumer.pause([TopicPartition(self._spec.topic, p) for p in ahead if p not in self._paused])
            self._paused = ahead

    def _heard(self, error: Any) -> None:
        """Called by librdkafka, inside `consume` and `poll`, about its connections."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self._lost is None:
                self._lost = self._context.clock.monotonic_ns()
                self._asking.outage.goes_on(self._reason or "all brokers are down")
        else:
            self._reason = error.str()

    def _watch(self, received: bool) -> None:
        """Whether there are brokers at all, and whether the topic has grown."""
        now = self._context.clock.monotonic_ns()
        if received:
            self._found()
        if self._probe is not None and self._probe.done():
            probe, self._probe = self._probe, None
            if probe.exception() is None:
                self._found()
                self._grown(probe.result())
        if self._lost is not None and now - self._lost >= self._patience:
            raise ConnectionError(
                f"{self._place}: Kafka at {self._spec.servers} was lost for {readable_duration(self._patience)} "
                f"({self._reason}); a run resumed from its checkpoint goes on where it was"
            )
        if self._probe is None and now - self._probed >= (_GROWN_NS if self._lost is None else _LOST_NS):
            self._probed = now
            self._probe = self._asking.begin(self._partitions)

    def _found(self) -> None:
        if self._lost is not None:
            self._lost = None
            self._asking.outage.ends()

    def _grown(self, partitions: Iterable[int]) -> None:
        if self._ends is None:
            for partition in partitions:
                if partition not in self._next:
                    low, high = self._marks(partition)
                    self._next[partition] = low
                    self._assign(partition, low, low, high)

    def position(self) -> Mapping[str, Any]:
        """See `Log.position`."""
        ends = None if self._ends is None else {str(partition): end for partition, end in self._ends.items()}
        return {"partitions": {str(partition): offset for partition, offset in self._next.items()}, "ends": ends}

    def finish(self) -> None:
        """See `Log.finish`."""
        self._asking.finishing.set()

    def taken(self) -> None:
        """See `Log.taken`: tell the group, now and then."""
        now = self._context.clock.monotonic_ns()
        if self._spec.group is not None and now - self._committed >= _COMMIT_NS:
            self._committed = now
            self._consumer.commit(offsets=self._offsets(), asynchronous=True)

    def _offsets(self) -> list[Any]:
        return [TopicPartition(self._spec.topic, partition, offset) for partition, offset in self._next.items()]

    def close(self) -> None:
        """See `Log.close`."""
        if self._consumer is not None and self._spec.group is not None and self._lost is None and self._next:
            wait([self._asking.begin(self._consumer.commit, offsets=self._offsets(), asynchronous=False)], 2.0)
        self._asking.close()
        if self._consumer is not None:
            self._consumer.close()
