"""Redis Streams against a real server: rows of the file, positions, what was trimmed, ends, and a server that goes away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from live_feeds import beside, follow, free_port, lines_of, write_lines
from penstock import read, sinks, sources
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, MissingExtraError, RunError
from penstock.pipeline.source import SourceSpec
from penstock.sources.brokers.redis_stream import RedisStream
from penstock.sources.live.json_messages import JsonMessages
from penstock.sources.live.raw_messages import RawMessages
from source_reading import counts_when_cut, read_whole, resumes_at_every_block

redis = pytest.importorskip("redis")

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


class Server:
    """A redis-server of its own, which can be stopped and started with what it held."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "yes", "save": ""}
        arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
        self._process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        self.client: Any = redis.Redis.from_url(
            self.url, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
        )
        self.client.ping()

    def stop(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(10)

    def add(self, stream: str, entries: Iterable[tuple[int, bytes]], **options: Any) -> None:
        """(ms, data); the field `ts_recv` says the same time as the id."""
        together = self.client.pipeline(transaction=False)
        for ms, data in entries:
            together.xadd(stream, {"data": data, "ts_recv": b"%d" % (ms * 10**6)}, id=f"{ms}-*", **options)
        together.execute()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server: install the package of that name")
    made = Server(tmp_path_factory.mktemp("redis"))
    yield made
    made.stop()


@pytest.fixture
def stream(request: Any) -> str:
    return str(request.node.name)


def digest(spec: SourceSpec, path: Path) -> str:
    report = read(spec).write(sinks.ArrowIpc(path, overwrite=True)).run(runner="inline")
    return str(next(iter(report.digests.values())))


def timed(count: int, *, start: int = 0) -> list[tuple[int, bytes]]:
    return [(BASE_MS + n, line) for n, line in enumerate(lines_of(count, start=start), start)]


def data_of(table: Any) -> list[bytes]:
    return list(table["data"].to_pylist())


def test_rows_of_a_stream_are_those_of_the_file(server: Server, stream: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 3000)
    server.add(stream, timed(3000))
    want = digest(sources.Ndjson(path, columns=COLUMNS), tmp_path / "file.arrow")
    assert digest(RedisStream(server.url, stream, JSON, end="now"), tmp_path / "stream.arrow") == want


@pytest.mark.parametrize("end", ["now", None])
def test_a_run_goes_on_behind_every_block(
    server: Server, stream: str, monkeypatch: pytest.MonkeyPatch, end: str | None
) -> None:
    monkeypatch.setattr("penstock.sources.brokers._redis_log._ENTRIES", 7)
    server.add(stream, timed(30))
    server.client.xadd(stream, {"other": b"1", "more": b"2"}, id=f"{BASE_MS + 40}-0")
    server.add(stream, timed(20, start=50))
    whole = resumes_at_every_block(RedisStream(server.url, stream, RawMessages(), end=end, most=None if end else 50))
    assert data_of(whole.table) == [*lines_of(30), *lines_of(20, start=50)]
    assert [(bad.operation, bad.error, bad.data) for bad in whole.bad] == [
        ("broker.field", "no field 'data'; it has more, other", b"other\n1\nmore\n2")
    ]
    assert f"entry {BASE_MS + 40}-0" in whole.bad[0].place and len(whole.blocks) >= 8


def test_a_bounded_run_ends_where_the_stream_ended_when_it_began(server: Server, stream: str) -> None:
    spec = RedisStream(server.url, stream, JSON, end="now")
    assert read_whole(spec).table.num_rows == 0
    server.add(stream, timed(20))
    begun = read_whole(spec).blocks[0].after
    server.add(stream, timed(5, start=20))
    assert read_whole(spec, position=begun).table["n"].to_pylist() == list(range(20))
    server.client.xtrim(stream, maxlen=3, approximate=False)
    late = read_whole(spec, position=begun)
    assert late.table.num_rows == 0 and [bad.operation for bad in late.bad] == ["broker.gap"]


def test_a_run_that_follows_gets_what_comes_later(server: Server, stream: str) -> None:
    server.add(stream, timed(30))
    reader = RedisStream(server.url, stream, RawMessages(), start="latest", most=40).open(Context("feed"))
    blocks = reader.blocks()
    next(blocks)
    with beside(lambda: [server.add(stream, timed(10, start=s)) for s in (30, 40, 50, 60)]):
        found = [data for b in blocks for batch in reader.decode(b).batches for data in batch["data"].to_pylist()]
    reader.close()
    assert found == lines_of(40, start=30)


@pytest.mark.parametrize("read_first", [0, 4])
def test_entries_trimmed_before_they_were_read_are_told_with_their_number(
    server: Server, stream: str, monkeypatch: pytest.MonkeyPatch, read_first: int
) -> None:
    monkeypatch.setattr("penstock.sources.brokers._redis_log._ENTRIES", 4)
    server.add(stream, timed(10))
    server.client.xdel(stream, f"{BASE_MS + 1}-0")
    blocks = read_whole(RedisStream(server.url, stream, RawMessages(), most=9)).blocks
    after = blocks[0 if read_first == 0 else 1].after
    server.client.xdel(stream, f"{BASE_MS + 8}-0")
    server.client.xtrim(stream, maxlen=2, approximate=False)  # 7 and 9 are left
    whole = read_whole(RedisStream(server.url, stream, RawMessages(), most=read_first + 2), position=after)
    assert data_of(whole.table) == [lines_of(10)[7], lines_of(10)[9]]
    last = "0-0" if read_first == 0 else f"{BASE_MS + 4}-0"
    lost = 7 - read_first
    assert [(bad.operation, bad.error) for bad in whole.bad] == [
        ("broker.gap", f"{lost} entries after {last} and before {BASE_MS + 7}-0 were deleted before they were read")
    ]


def test_trimming_behind_the_reader_is_no_gap(server: Server, stream: str) -> None:
    server.add(stream, timed(10))
    after = read_whole(RedisStream(server.url, stream, RawMessages(), most=10)).blocks[-1].after
    server.client.xtrim(stream, maxlen=0, approximate=False)
    server.add(stream, timed(5, start=10), maxlen=5, approximate=False)
    whole = read_whole(RedisStream(server.url, stream, RawMessages(), most=15), position=after)
    assert data_of(whole.table) == lines_of(5, start=10) and whole.bad == []


def test_a_stream_made_anew_is_told_and_read_from_its_beginning(server: Server, stream: str) -> None:
    server.add(stream, timed(10))
    after = read_whole(RedisStream(server.url, stream, RawMessages(), most=10)).blocks[-1].after
    server.client.delete(stream)
    server.add(stream, timed(3))
    whole = read_whole(RedisStream(server.url, stream, RawMessages(), most=13), position=after)
    assert data_of(whole.table) == lines_of(3)
    assert [bad.error for bad in whole.bad] == [f"the stream was deleted and made again after entry {BASE_MS + 9}-0"]


def test_times_are_those_of_the_ids_without_a_field(server: Server, stream: str) -> None:
    server.client.xadd(stream, {"payload": b"a"}, id="1700000000123-7")
    server.client.xadd(stream, {"payload": b"b", "ts_recv": b"no number"}, id="1700000000124-0")
    whole = read_whole(RedisStream(server.url, stream, RawMessages(), field="payload", end="now"))
    assert [row["ts_recv"] for row in whole.rows] == [1_700_000_000_123_000_000, 1_700_000_000_124_000_000]


def test_nothing_is_lost_while_the_server_restarts(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    other = Server(tmp_path / "data")
    other.add("s", timed(20))
    reader = RedisStream(other.url, "s", RawMessages(), most=40).open(Context("feed"))
    found: list[bytes] = []
    half = threading.Event()

    def receive() -> None:
        for block in reader.blocks():
            found.extend(data for batch in reader.decode(block).batches for data in batch["data"].to_pylist())
            if len(found) == 20:
                half.set()

    try:
        with beside(receive):
            assert half.wait(10)
            other.stop()
            other.start()
            other.add("s", timed(20, start=20))
    finally:
        reader.close()
        other.stop()
    assert found == lines_of(40)


def test_a_run_that_fails_goes_on_to_the_same_rows_and_counts(
    server: Server, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(stream, [*timed(70), (BASE_MS + 70, b"no json"), *timed(130, start=71)])
    spec = RedisStream(server.url, stream, JSON, end="now")

    def run(folder: str, **options: Any) -> Any:
        even = read(spec).filter(lambda batch: pc.equal(pc.bit_wise_and(batch["n"], 1), 0)).map(trapped)
        return even.write(sinks.Parquet(tmp_path / folder)).run(**options)

    options = {"checkpoint": tmp_path / "checkpoints", "checkpoint_rows": 30}
    monkeypatch.setattr("penstock.sources.brokers._redis_log._ENTRIES", 20)
    monkeypatch.setitem(TRAP, "at", 180)
    with pytest.raises(RunError, match="trapped"):
        run("out", runner="inline", **options)
    monkeypatch.setitem(TRAP, "at", None)
    monkeypatch.setattr("penstock.sources.brokers._redis_log._ENTRIES", 33)  # in other blocks than before
    again, whole = run("out", resume=True, **options), run("whole")
    assert again["checkpoints"]["resumed_from"] and again.digests == whole.digests
    names = ("rows_in", "rows_out", "bytes_in", "dropped", "quarantined")
    found = [[[stage[name] for name in names] for stage in one["stages"].values()] for one in (again, whole)]
    assert found[0] == found[1] and found[1][0][0] == 201


def test_a_run_that_is_gone_in_the_middle_of_a_block_goes_on_to_the_same_rows_and_counts(
    server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(stream, [*timed(70), (BASE_MS + 70, b"no json"), *timed(130, start=71)])
    spec = RedisStream(server.url, stream, JSON, end="now")
    rows, whole = counts_when_cut(spec)
    assert rows == [n for n in range(201) if n != 70] and (whole["rows_in"], whole["quarantined"]) == (201, 1)
    for cut in (1, 3, 5):
        monkeypatch.setattr("penstock.sources.brokers._redis_log._ENTRIES", 20)
        other = partial(monkeypatch.setattr, "penstock.sources.brokers._redis_log._ENTRIES", 33)
        assert counts_when_cut(spec, cut, other) == (rows, whole)


def test_a_server_that_is_not_there_or_refuses_is_one_clear_error(server: Server, stream: str) -> None:
    away = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    with pytest.raises(ConnectionError, match=r"no answer from Redis at redis://127.*refused") as caught:
        follow(RedisStream(away, stream, JSON, reconnect="0s"))
    assert "secret" not in str(caught.value) and "secret" not in repr(RedisStream(away, stream, JSON))
    server.client.set(stream, b"text")
    with pytest.raises(ConnectionError, match="WRONGTYPE"):
        follow(RedisStream(server.url, stream, JSON))
    with pytest.raises(ConnectionError, match="refuses"):
        follow(RedisStream(server.url.replace("127", "user:wrong@127"), stream, JSON))


def test_a_stopped_run_ends_quietly_and_so_does_one_whose_time_is_up(server: Server, stream: str) -> None:
    assert follow(RedisStream(server.url, stream, JSON, duration="1ms"))[0].num_rows == 0
    context = Context("feed", stop=threading.Event())
    reader = RedisStream(server.url, stream, JSON).open(context)
    blocks = reader.blocks()
    next(blocks)
    with beside(lambda: list(blocks)) as rest:
        context.stop.set()
    assert rest == [[]]
    reader.close()


def test_wrong_arguments_and_a_missing_package_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, name, options in (("http://h", "s", {}), ("redis://h", "", {}), ("redis://h", "s", {"field": ""})):
        with pytest.raises(GraphError):
            RedisStream(url, name, JSON, **options)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setattr("penstock.sources.brokers.redis_stream.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"penstock\[brokers\]"):
        RedisStream("redis://h", "s", JSON).open(Context("feed"))


def test_the_log_says_that_the_server_is_away_and_that_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    context, port = Context("feed"), free_port()
    log: Any = RedisStream(f"redis://127.0.0.1:{port}/0", "s", JSON, reconnect="20s").log(context, None)
    failures = [redis.ConnectionError("Error 111 connecting. Connection refused.")] * 2

    def answer() -> str:
        if failures:
            raise failures.pop()
        return "there"

    assert [log._answer(answer), log._answer(answer)] == ["there", "there"]
    log.close()
    place = f"redis:s at redis://127.0.0.1:{port}/0"
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == f"{place}: error 111 connecting. Connection refused; trying again for 20 s"
    assert len(told) == 2 and told[1].startswith(f"{place}: connected after ")


def test_a_stream_that_is_followed_can_be_ended_and_one_that_ends_by_itself_cannot(server: Server, stream: str) -> None:
    server.add(stream, timed(30))
    assert not RedisStream(server.url, stream, JSON, end="now").open(Context("feed")).finish()
    reader = RedisStream(server.url, stream, JSON).open(Context("feed"))
    blocks = reader.blocks()
    found = [next(blocks), next(blocks)]
    assert reader.finish() and sum(block.records for block in [*found, *blocks]) == 30
    reader.close()


def test_nobody_waits_for_a_server_that_is_away_when_the_feed_is_ended() -> None:
    reader = RedisStream(f"redis://127.0.0.1:{free_port()}/0", "s", JSON, reconnect="1h").open(Context("feed"))
    with beside(lambda: list(reader.blocks())) as outcome:
        assert reader.finish()
    assert outcome == [[]]
    reader.close()
