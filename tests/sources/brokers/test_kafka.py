"""Kafka against librdkafka's own mock brokers: rows of the file, positions, gaps, order, ends and failures."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from live_feeds import beside, follow, free_port, lines_of, write_lines
from penstock import read, sinks, sources
from penstock.pipeline.context import Context
from penstock.pipeline.errors import CheckpointError, GraphError, MissingExtraError, RunError
from penstock.pipeline.source import SourceSpec
from penstock.sources.brokers._kafka_merge import InTimeOrder
from penstock.sources.brokers.kafka import Kafka
from penstock.sources.live.crypto_messages import CryptoMessages
from penstock.sources.live.json_messages import JsonMessages
from penstock.sources.live.raw_messages import RawMessages
from source_reading import counts_when_cut, read_whole, resumes_at_every_block

kafka = pytest.importorskip("confluent_kafka")
KafkaLog = pytest.importorskip("penstock.sources.brokers._kafka_log").KafkaLog

COLUMNS = {"n": "n:int64"}
JSON = JsonMessages(sources.Ndjson("feed", columns=COLUMNS))
BASE_MS = 10**12


#: The number at which a run fails, None for not at all.
TRAP: dict[str, int | None] = {"at": None}


def trapped(batch: pa.RecordBatch) -> pa.RecordBatch:
    at = TRAP["at"]
    if at is not None and pc.any(pc.greater_equal(batch["n"], at)).as_py():
        raise RunError("trapped")
    return batch


class Cluster:
    """Brokers inside this process, with a topic of four partitions as soon as it is named."""

    def __init__(self) -> None:
        self._brokers: Any = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock:1", "log_level": 0})
        found = self._brokers.list_topics(timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in found)
        self._producer: Any = kafka.Producer({"bootstrap.servers": self.servers, "log_level": 0})

    def send(self, topic: str, messages: Iterable[tuple[int, int, bytes | None]], *, headers: bool = True) -> None:
        """(partition, ms, data), in order; the header of a JSON line is its own time."""
        for partition, ms, data in messages:
            stamps = [("ts_recv", b"%d" % (ms * 10**6))] if headers else None
            self._producer.produce(topic, data, partition=partition, timestamp=ms, headers=stamps)
        assert self._producer.flush(10) == 0

    def make(self, topic: str) -> None:
        """An empty topic."""
        self._producer.list_topics(topic, timeout=10)

    def stop(self) -> None:
        self._producer = self._brokers = None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.stop()


@pytest.fixture
def topic(request: Any) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def digest(spec: SourceSpec, path: Path) -> str:
    report = read(spec).write(sinks.ArrowIpc(path, overwrite=True)).run(runner="inline")
    return str(next(iter(report.digests.values())))


def spread(count: int, partitions: int, *, start: int = 0) -> list[tuple[int, int, bytes | None]]:
    """Lines dealt to partitions unevenly, with the times that they say."""
    lines = lines_of(count, start=start)
    return [((n * n) % partitions, BASE_MS + n, line) for n, line in enumerate(lines, start)]


@pytest.mark.parametrize("partitions", [1, 4])
def test_rows_of_a_topic_are_those_of_the_file(cluster: Cluster, topic: str, tmp_path: Path, partitions: int) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 500)
    cluster.send(topic, spread(500, partitions))
    want = digest(sources.Ndjson(path, columns=COLUMNS), tmp_path / "file.arrow")
    assert digest(Kafka(cluster.servers, topic, JSON, end="now"), tmp_path / "topic.arrow") == want


@pytest.mark.parametrize("end", ["now", None])
def test_a_run_goes_on_behind_every_block(
    cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch, end: str | None
) -> None:
    monkeypatch.setattr("penstock.sources.live.message_reader._MESSAGES", 7)
    cluster.send(topic, [*spread(40, 4), (0, BASE_MS + 50, b"no json"), *spread(9, 4, start=60)])
    spec = Kafka(cluster.servers, topic, RawMessages(), end=end, most=50)
    if end is None:
        spec = Kafka(cluster.servers, topic, RawMessages(), most=50, partitions=[0])
        cluster.send(topic, [(0, BASE_MS + 90 + n, b"%d" % n) for n in range(50)])
    whole = resumes_at_every_block(spec)
    assert whole.table.num_rows == whole.records == 50
    assert len(whole.blocks) >= 8 and whole.blocks[0].records == 0 and whole.bad == []


def test_merged_partitions_come_in_the_order_of_time_partition_and_offset(cluster: Cluster, topic: str) -> None:
    stamps = [(n * 7919) % 13 for n in range(200)]
    sent = [((n * 31) % 4, BASE_MS + 5 * n + stamps[n] // 12 * 100, b"%d" % n) for n in range(200)]
    cluster.send(topic, [(p, ms, data) for p, ms, data in sent])
    table, bad, dropped = follow(Kafka(cluster.servers, topic, RawMessages(), end="now"))
    queues = [[m for m in sent if m[0] == p] for p in range(4)]
    want: list[bytes] = []
    while any(queues):
        first = min((q for q in queues if q), key=lambda q: (q[0][1], q[0][0]))
        want.append(first.pop(0)[2])
    assert table["data"].to_pylist() == want and bad == [] and dropped == {}
    assert [want[i] for i in pc.indices_nonzero(pc.equal(table["channel"], 2)).to_pylist()] == [
        m[2] for m in sent if m[0] == 2
    ]


def test_a_partition_that_is_far_ahead_waits_and_nothing_comes_twice(
    cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.sources.brokers._kafka_log._AHEAD", 3000)
    monkeypatch.setattr("penstock.sources.brokers._kafka_log._MESSAGES", 16)
    held: list[int] = []
    pop = InTimeOrder.pop

    def watched(self: InTimeOrder) -> Any:
        held.append(max(self.held(partition) for partition in range(4)))
        return pop(self)

    monkeypatch.setattr(InTimeOrder, "pop", watched)
    cluster.send(topic, [(3 - n // 500, BASE_MS + n, b"%d" % n) for n in range(2000)])
    spec = Kafka(cluster.servers, topic, RawMessages(), end="now")
    reader = spec.open(Context("feed"))
    monkeypatch.setattr("penstock.sources.brokers._log_reader.BLOCK_BYTES", 4000)
    found = [
        int(data)
        for block in reader.blocks()
        for batch in reader.decode(block).batches
        for data in batch["data"].to_pylist()
    ]
    reader.close()
    assert found == list(range(2000)) and 3000 < max(held) < 60_000


def test_partitions_that_are_added_are_read_from_their_beginning(
    cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.sources.brokers._kafka_log._GROWN_NS", 0)
    known = iter([[0, 1], [0, 1]])
    monkeypatch.setattr(KafkaLog, "_partitions", lambda self: next(known, [0, 1, 2, 3]))
    cluster.send(topic, spread(40, 4))
    cluster.send(topic, [(2, BASE_MS, b"new")])
    table, _, _ = follow(Kafka(cluster.servers, topic, RawMessages(), most=41))
    assert sorted(table["data"].to_pylist()) == sorted([*lines_of(40), b"new"])


def test_what_comes_while_a_bounded_run_is_interrupted_is_not_of_it(cluster: Cluster, topic: str) -> None:
    cluster.send(topic, spread(20, 2))
    spec = Kafka(cluster.servers, topic, JSON, end="now")
    begun = read_whole(spec).blocks[0].after
    cluster.send(topic, spread(20, 4, start=20))
    assert read_whole(spec, position=begun).table["n"].to_pylist() == list(range(20))


def test_a_run_that_follows_gets_what_comes_later_and_each_partition_keeps_its_order(
    cluster: Cluster, topic: str
) -> None:
    cluster.send(topic, spread(30, 4))
    spec = Kafka(cluster.servers, topic, RawMessages(), start="latest", most=60, group="watchers")
    reader = spec.open(Context("feed"))
    blocks = reader.blocks()
    first = next(blocks)
    assert sum(first.after["log"]["partitions"].values()) == 30
    cluster.send(topic, spread(60, 4, start=30))
    rows: list[tuple[int, bytes]] = []
    for block in blocks:
        for batch in reader.decode(block).batches:
            rows += zip(batch["channel"].to_pylist(), batch["data"].to_pylist(), strict=True)
    reader.close()
    for partition in range(4):
        sent = [data for p, _, data in spread(60, 4, start=30) if p == partition]
        assert [data for p, data in rows if p == partition] == sent
    told = kafka.Consumer({"bootstrap.servers": cluster.servers, "group.id": "watchers", "log_level": 0})
    ends = told.committed([kafka.TopicPartition(topic, p) for p in range(4)], timeout=10)
    assert sum(end.offset for end in ends if end.offset > 0) == 90
    told.close()


@pytest.mark.parametrize("end", ["now", None])
def test_offsets_that_were_deleted_are_told_and_reading_goes_on(cluster: Cluster, topic: str, end: str | None) -> None:
    big = b"x" * 900_000
    cluster.send(topic, [(0, BASE_MS + n, b"%d" % n + big) for n in range(3)])
    most = None if end else 9
    spec = Kafka(cluster.servers, topic, RawMessages(), end=end, most=most, partitions=[0])
    begun = spec.open(Context("feed"))
    after = next(begun.blocks()).after
    begun.close()
    cluster.send(topic, [(0, BASE_MS + n, b"%d" % n + big) for n in range(3, 9)])  # the mock keeps 5 MiB
    low = 4
    if end:
        after = {**after, "log": {**after["log"], "ends": {"0": 9}}}
    else:
        spec = Kafka(cluster.servers, topic, RawMessages(), most=9 - low, partitions=[0])
    whole = read_whole(spec, position=after)
    assert [data[:1] for data in whole.table["data"].to_pylist()] == [b"4", b"5", b"6", b"7", b"8"]
    assert [(record.operation, record.error) for record in whole.bad] == [
        ("broker.gap", f"offsets 0 to {low - 1} of partition 0 were deleted before they were read")
    ]
    assert whole.table["seq"].to_pylist() == list(range(5))


def test_retention_that_overtakes_a_reader_is_told(cluster: Cluster, topic: str) -> None:
    big = b"x" * 900_000
    cluster.send(topic, [(0, BASE_MS, b"0")])
    spec = Kafka(cluster.servers, topic, RawMessages(), partitions=[0], most=6)
    reader = spec.open(Context("feed"))
    blocks = reader.blocks()
    first = next(block for block in blocks if block.records)
    cluster.send(topic, [(0, BASE_MS + n, b"%d" % n + big) for n in range(1, 10)])  # the mock keeps five of them
    seen: list[bytes] = []
    bad: list[Any] = []
    for block in itertools.chain([first], blocks):
        decoded = reader.decode(block)
        bad += decoded.bad
        seen += [data[:1] for batch in decoded.batches for data in batch["data"].to_pylist()]
    reader.close()
    told = [range(int(words[1]), int(words[3]) + 1) for words in (record.error.split() for record in bad)]
    missing = [n for gap in told for n in gap]  # none if it was read before it was deleted
    assert sorted([*(int(data) for data in seen), *missing])[: 6 + len(missing)] == list(range(6 + len(missing)))
    assert seen == sorted(seen) and len(seen) == 6


def test_a_topic_made_anew_is_told_and_not_read_as_the_old_one(cluster: Cluster, topic: str) -> None:
    cluster.send(topic, [(0, BASE_MS, b"0")])
    spec = Kafka(cluster.servers, topic, RawMessages(), partitions=[0], most=5)
    after = {"seq": 9, "taken": 0, "log": {"partitions": {"0": 9}, "ends": None}, "session": {}}
    with pytest.raises(CheckpointError, match="ends at offset 1, before offset 9"):
        read_whole(spec, position=after)


def test_messages_without_a_value_are_counted_and_times_are_kafkas_without_a_header(
    cluster: Cluster, topic: str
) -> None:
    cluster.send(topic, [(0, BASE_MS, b"a"), (0, BASE_MS + 1, None), (0, BASE_MS + 2, b"b")], headers=False)
    whole = read_whole(Kafka(cluster.servers, topic, RawMessages(), end="now"))
    assert whole.dropped == {"without a value": 1}
    assert [row["ts_recv"] for row in whole.rows] == [BASE_MS * 10**6, (BASE_MS + 2) * 10**6]


def test_an_empty_topic_ends_at_once_and_a_stopped_run_ends_quietly(cluster: Cluster, topic: str) -> None:
    with pytest.raises(ConnectionError, match=r"topic '.*': Broker: Unknown topic"):
        read_whole(Kafka(cluster.servers, topic, JSON, reconnect="0s"))
    cluster.make(topic)
    assert read_whole(Kafka(cluster.servers, topic, JSON, end="now")).table.num_rows == 0
    assert read_whole(Kafka(cluster.servers, topic, JSON, duration="1ms")).table.num_rows == 0
    context = Context("feed", stop=threading.Event())
    reader = Kafka(cluster.servers, topic, JSON).open(context)
    blocks = reader.blocks()
    next(blocks)
    with beside(lambda: list(blocks)) as rest:
        context.stop.set()
    assert rest == [[]]
    reader.close()


def test_what_is_recorded_reads_again_to_the_same_rows(cluster: Cluster, topic: str, tmp_path: Path) -> None:
    cluster.send(topic, spread(50, 4))
    spec = Kafka(cluster.servers, topic, JSON, end="now", record=str(tmp_path / "day.mcap"))
    want = digest(spec, tmp_path / "live.arrow")
    assert digest(sources.Recording(tmp_path / "day.mcap"), tmp_path / "again.arrow") == want


def test_books_go_on_behind_every_block(cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.sources.live.message_reader._MESSAGES", 5)
    update = '{{"e":"bookTicker","u":{n},"s":"BTCUSDT","b":"{n}.5","B":"1","a":"{n}.7","A":"2","T":{t},"E":{t}}}'
    cluster.send(topic, [(0, BASE_MS + n, update.format(n=n, t=BASE_MS + n).encode()) for n in range(1, 30)])
    codec = CryptoMessages("binance-usdm", "bbo", ("BTCUSDT",))
    whole = resumes_at_every_block(Kafka(cluster.servers, topic, codec, end="now"))
    assert whole.table.num_rows == 29


@pytest.mark.parametrize("end", ["now", None])
def test_a_run_that_fails_goes_on_from_its_checkpoint_to_the_same_rows(
    cluster: Cluster, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str | None
) -> None:
    monkeypatch.setattr("penstock.sources.live.message_reader._MESSAGES", 20)
    cluster.send(topic, spread(300, 4 if end else 1))
    spec = Kafka(cluster.servers, topic, JSON, end=end, most=300)

    def flow() -> Any:
        return read(spec).map(trapped).write(sinks.Parquet(tmp_path / "out"))

    options = {"checkpoint": tmp_path / "checkpoints", "checkpoint_rows": 50}
    monkeypatch.setitem(TRAP, "at", 180)
    with pytest.raises(RunError, match="trapped"):
        flow().run(runner="inline", **options)
    monkeypatch.setitem(TRAP, "at", None)
    monkeypatch.setattr("penstock.sources.live.message_reader._MESSAGES", 33)  # in other blocks than before
    report = flow().run(runner="local", resume=True, **options)
    assert report["checkpoints"]["resumed_from"]
    assert pq.read_table(tmp_path / "out")["n"].to_pylist() == list(range(300))
    assert pq.read_table(tmp_path / "out")["seq"].to_pylist() == list(range(300))
    assert report.rows == 300
    stage = report["stages"]["read"]
    assert (stage["rows_in"], stage["rows_out"]) == (300, 300)


@pytest.mark.parametrize("end", ["now", None])
def test_a_run_that_is_gone_in_the_middle_of_a_block_goes_on_to_the_same_rows_and_counts(
    cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch, end: str | None
) -> None:
    cluster.send(topic, [*spread(60, 4), (0, BASE_MS + 60, b"no json"), *spread(139, 4, start=61)])
    spec = Kafka(cluster.servers, topic, JSON, end=end, most=200)
    rows, whole = counts_when_cut(spec)
    assert len(rows) == 199 and (whole["rows_in"], whole["quarantined"]) == (200, 1)
    for cut in (1, 3):
        monkeypatch.setattr("penstock.sources.live.message_reader._MESSAGES", 20)
        other = partial(monkeypatch.setattr, "penstock.sources.live.message_reader._MESSAGES", 33)
        found, counted = counts_when_cut(spec, cut, other)
        assert (len(found), counted) == (199, whole) and (end is None or found == rows)


def test_brokers_that_are_not_there_are_one_clear_error() -> None:
    spec = Kafka(f"127.0.0.1:{free_port()}", "ticks", JSON, reconnect="0s")
    with pytest.raises(ConnectionError, match=r"kafka:ticks: no answer from Kafka at 127\.0\.0\.1:\d+.*refused"):
        follow(spec)


def test_brokers_that_are_lost_end_the_run_with_an_error_that_says_how_to_go_on() -> None:
    cluster = Cluster()
    cluster.send("ticks", [(0, BASE_MS, b"a")])
    reader = Kafka(cluster.servers, "ticks", RawMessages(), reconnect="0s").open(Context("feed"))
    blocks = reader.blocks()
    assert [next(blocks).records for _ in range(2)] == [0, 1]
    cluster.stop()
    with pytest.raises(ConnectionError, match="goes on where it was"):
        next(blocks)
    reader.close()


def test_wrong_arguments_and_a_missing_package_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (
        {"start": "middle"},
        {"end": "later"},
        {"most": 0},
        {"partitions": []},
        {"options": {"group.id": "x"}},
    ):
        with pytest.raises(GraphError):
            Kafka("h:9092", "t", JSON, **options)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="servers"):
        Kafka("", "t", JSON)
    with pytest.raises(GraphError, match="no\\.such\\.option"):
        follow(Kafka("h:9092", "t", JSON, options={"no.such.option": 1}))
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.setattr("penstock.sources.brokers.kafka.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"penstock\[brokers\]"):
        Kafka("h:9092", "t", JSON).open(Context("feed"))
