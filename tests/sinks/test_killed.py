"""Sinks of a run with checkpoints that is killed, anywhere and again and again, and resumed.

What a kill leaves is what the system has at that moment: so a copy of the folders, taken before each change of the file
system, is what a process killed there leaves, and every one of them is resumed. To be sure, some processes are really
lost: forked, and gone at the k-th change. What stands in the folders in the end must be what an undisturbed run leaves,
byte for byte.
"""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import shutil
import sqlite3
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operator_state import decode_state, encode_state
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.pipeline.operator import State
from penstock.pipeline.sink import Sink, SinkSpec
from penstock.sinks import ArrowIpc, Callback, Collect, JsonLines, Parquet

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.dictionary(pa.int8(), pa.utf8()))])
Make = Callable[[Path], SinkSpec]
SPECS: dict[str, Make] = {
    "parquet": lambda folder: Parquet(folder / "out", rows_per_file=4, row_group_rows=3),
    "partitioned": lambda folder: Parquet(folder / "out", row_group_rows=5, partition_by="s"),
    "published": lambda folder: Parquet(folder / "out", rows_per_file=4, row_group_rows=3, publish="checkpoint"),
    "published partitions": lambda folder: Parquet(
        folder / "out", row_group_rows=5, partition_by="s", publish="checkpoint"
    ),
    "arrow": lambda folder: ArrowIpc(folder / "out.arrow", batch_rows=4),
    "jsonl": lambda folder: JsonLines(folder / "out.jsonl"),
    "gzip": lambda folder: JsonLines(folder / "out.jsonl.gz"),
}
#: Numbers of rows of a run before, which overwrite=True replaces, begin here.
OLD = 1000
DEAD = 77
CHANGES = ("fsync", "mkdir", "open", "replace", "rmdir", "unlink")
Tick = Callable[[], None]


def rows(count: int, start: int = 0) -> pa.RecordBatch:
    numbers = list(range(start, start + count))
    names = pa.array([f"k{n * n % 3}" for n in numbers], SCHEMA.field("s").type)
    return pa.record_batch([pa.array(numbers), names], schema=SCHEMA)


def cut(sizes: Sequence[int]) -> list[pa.RecordBatch]:
    return [rows(size, end - size) for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def numbers_in(folder: Path) -> list[int]:
    """Column n of everything that a reader sees, sorted."""
    found: list[int] = []
    for path in folder.rglob("*"):
        if ".penstock-staging-" in str(path) or not path.is_file():
            continue
        if path.suffix == ".parquet":
            found += pq.ParquetFile(path).read(["n"], use_threads=False).column("n").to_pylist()
        elif path.suffix == ".arrow":
            with pa.ipc.open_file(path) as reader:
                found += reader.read_all().column("n").to_pylist()
        else:
            data = path.read_bytes()
            text = gzip.decompress(data) if path.suffix == ".gz" else data
            found += [json.loads(line)["n"] for line in text.splitlines()]
    return sorted(found)


@pytest.fixture(autouse=True)
def _kills_are_not_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that the system has, so there is no need to wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Disturbed:
    """While it is entered, ``happen(k)`` is called before the k-th change of the file system that Python makes, or tick."""

    def __init__(self, happen: Callable[[int], object]) -> None:
        self._happen = happen
        self._saved: dict[str, Any] = {}
        #: Made once: shutil compares functions of os with those that it saw before.
        self._ours = {name: self._counted(getattr(os, name)) for name in CHANGES}
        self.count = 0

    def tick(self) -> None:
        if self._saved:
            self.count += 1
            with self._calm():
                self._happen(self.count - 1)

    @contextmanager
    def _calm(self) -> Iterator[None]:
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def __enter__(self) -> Disturbed:
        self._saved = {name: getattr(os, name) for name in CHANGES}
        for name, change in self._ours.items():
            setattr(os, name, change)
        return self

    def __exit__(self, *_: object) -> None:
        for name, change in self._saved.items():
            setattr(os, name, change)
        self._saved = {}

    def _counted(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.tick()
            return change(*arguments, **options)

        return counted


def dies(work: Callable[[Tick], object], at: int) -> bool:
    """Do `work` in a process that is lost at its `at`-th change; whether it was, or came to its end before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of Arrow, which the child does not use
        child = os.fork()
    if child == 0:
        code = 1
        try:
            with Disturbed(lambda count: os._exit(DEAD) if count == at else None) as disturbed:
                work(disturbed.tick)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DEAD), "the child failed; see its traceback above"
    return code == DEAD


class Run:
    """What a runner does with one sink. Its checkpoint is a file, replaced in one step."""

    def __init__(self, spec: SinkSpec, parts: Sequence[pa.RecordBatch], barriers: Collection[int], place: Path) -> None:
        self.spec, self.parts, self.barriers, self.place = spec, parts, barriers, place
        self._state, self._done = place / "state", place / "done"
        self.sink: Sink | None = None
        self.committed = False

    def saved(self) -> dict[str, Any] | None:
        return decode_state(self._state.read_bytes()) if self._state.exists() else None

    def _save(self, sink: Sink, *, at: int, final: bool = False) -> State:
        state = sink.snapshot()
        partial = self._state.with_suffix(".part")
        partial.write_bytes(encode_state({"sink": state, "at": at, "final": final}))
        os.replace(partial, self._state)  # noqa: PTH105
        return decode_state(self._state.read_bytes())["sink"]

    def go(self, tick: Tick = lambda: None, *, publish_again: bool = False, late: bool = False) -> None:
        """Begin, or go on from the checkpoint, to the end. `late` publishes a checkpoint when the next was taken."""
        if self._done.exists():
            return
        saved = self.saved()
        self.sink = sink = self.spec.open(Context("write", resuming=saved is not None), SCHEMA)
        start, waiting = 0, list[State]()
        if saved is not None:
            if saved["final"] and sink.is_committed(saved["sink"]):
                sink.detach()
                self._done.touch()
                return
            sink.restore(saved["sink"])
            if publish_again:
                sink.publish(saved["sink"])
            start = saved["at"]
        for index in range(start, len(self.parts)):
            tick()
            sink.write(self.parts[index])
            if index + 1 in self.barriers:
                waiting.append(self._save(sink, at=index + 1))
                while len(waiting) > late:
                    sink.publish(waiting.pop(0))
        self._save(sink, at=len(self.parts), final=True)
        sink.commit()
        self.committed = True
        tick()
        self._done.touch()

    @property
    def rows_stored(self) -> int:
        saved = self.saved()
        return sum(part.num_rows for part in self.parts[: saved["at"]]) if saved else 0


class Trial:
    """One sink, rows and checkpoints: run undisturbed once, and then disturbed in as many places as one likes."""

    def __init__(self, top: Path, make: Make, sizes: Sequence[int], barriers: Collection[int], old: int = 0) -> None:
        self._top, self._make, self._barriers, self._old = top, make, barriers, old
        self._parts = cut(sizes)
        self.total = sum(sizes)
        calm = self.begin("calm")
        calm.go()
        self.expected = files(calm.place / "results")
        assert numbers_in(calm.place / "results") == list(range(self.total))

    def begin(self, name: str) -> Run:
        """A run in new folders, where there are results of another if the trial says so."""
        place = self._top / name
        (place / "results").mkdir(parents=True)
        if self._old:
            before = self._make(place / "results").open(Context("write"), SCHEMA)
            before.write(rows(self._old, OLD))
            before.commit()
        return self.at(place)

    def at(self, place: Path) -> Run:
        """A run that goes on in `place`, if there is something to go on from."""
        spec = self._make(place / "results")
        if self._old:
            spec = replace(spec, overwrite=True)  # type: ignore[type-var]
        return Run(spec, self._parts, self._barriers, place)

    def look(self, run: Run, seen: Collection[int] = ()) -> set[int]:
        """Check what a reader may see between a kill and the resumption, `seen` before; what is seen now."""
        found = numbers_in(run.place / "results")
        new = {n for n in found if n < OLD}
        assert len(found) == len(set(found)), "a row is there twice"
        saved = run.saved()
        if isinstance(run.spec, Parquet) and run.spec.publish == "checkpoint":
            assert new >= set(seen), "a row that was there is gone"
            assert new <= set(range(run.rows_stored)), "a row is there that a resumed run writes again"
        elif saved is None or not saved["final"]:
            assert not new
            assert len(found) == self._old
        return new

    def check(self, run: Run) -> None:
        assert files(run.place / "results") == self.expected
        assert not list(run.place.rglob(".penstock-staging-*"))


#: Those that differ in more than one way are left out where every place is tried.
PLAIN = [name for name in SPECS if name != "published partitions"]
OVERWRITING = ("parquet", "published", "arrow")
variants = pytest.mark.parametrize(("name", "old"), [*((n, 0) for n in SPECS), *((n, 17) for n in OVERWRITING)])


@variants
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(name: str, old: int, tmp_path: Path) -> None:
    sizes, barriers = ([4, 3], {1}) if "partition" in name else ([4, 3, 3], {1, 2})
    trial = Trial(tmp_path, SPECS[name], sizes, barriers, old)
    first = trial.begin("first")
    with Disturbed(lambda count: shutil.copytree(first.place, tmp_path / f"kill-{count}")) as disturbed:
        first.go(disturbed.tick, late=bool(old))
    assert disturbed.count > 30
    for at in range(disturbed.count):
        run = trial.at(tmp_path / f"kill-{at}")
        seen = trial.look(run)

        def kill_again(count: int, at: int = at, place: Path = run.place) -> None:
            if count == at * 7 % 31 and at % 2:  # each time somewhere else
                shutil.copytree(place, tmp_path / "again")

        with Disturbed(kill_again):
            run.go(publish_again=at % 3 == 0, late=at % 4 > 1)
        trial.check(run)
        shutil.rmtree(run.place)
        if (tmp_path / "again").exists():
            run = trial.at(tmp_path / "again")
            trial.look(run, seen)
            run.go(publish_again=at % 3 > 0)
            trial.check(run)
            shutil.rmtree(run.place)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_checkpoints_and_processes_lost_end_the_same(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    sizes = data.draw(st.lists(st.integers(0, 9), max_size=5), label="batches")
    barriers = data.draw(st.sets(st.integers(1, 5)), label="checkpoints")
    old = data.draw(st.sampled_from([0, 0, 11]), label="older rows")
    kills = data.draw(st.lists(st.integers(0, 90), min_size=1, max_size=3), label="kills")
    late = data.draw(st.booleans(), label="published late")
    trial = Trial(tmp_path_factory.mktemp("out"), SPECS[name], sizes, barriers, old)
    run = trial.begin("killed")
    seen: set[int] = set()
    for at in kills:
        again = at % 2 == 0
        dies(lambda tick: run.go(tick, publish_again=again, late=late), at)  # noqa: B023
        seen = trial.look(run, seen)
    run.go()
    trial.check(run)


def fail_at(at: int, *, once: bool = True) -> Callable[[int], None]:
    def happen(count: int) -> None:
        if count == at or (count > at and not once):
            raise OSError(errno.ENOSPC, "disk full")

    return happen


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("once", [True, False])
def test_a_run_that_fails_anywhere_lets_go_and_can_be_resumed(name: str, once: bool, tmp_path: Path) -> None:
    trial = Trial(tmp_path, SPECS[name], [5, 4], {1})
    for at in itertools.count(0, 1 if once else 4):
        run = trial.begin(f"{at}")
        failed = False
        with Disturbed(fail_at(at, once=once)) as disturbed:
            try:
                run.go(disturbed.tick)
            except OSError:
                failed = True
                for _ in range(2) if run.sink is not None else ():
                    with suppress(OSError) if not once else nullcontext():
                        run.sink.detach()
        if disturbed.count <= at:
            break
        if failed:
            if once:
                seen = trial.look(run)
                assert not seen or run.committed or "published" in name
            run.go()
            trial.check(run)
        else:  # what failed was tidying up
            shown = files(run.place / "results")
            assert {name: data for name, data in shown.items() if ".penstock-staging-" not in name} == trial.expected
        shutil.rmtree(run.place)
    assert at > 20


@pytest.mark.parametrize("name", PLAIN)
def test_a_run_without_checkpoints_that_fails_anywhere_leaves_nothing_but_whole_results(
    name: str, tmp_path: Path
) -> None:
    for at in itertools.count():
        folder = tmp_path / f"{at}"
        folder.mkdir()
        sink, failed = None, False
        with Disturbed(fail_at(at)) as disturbed:
            try:
                sink = SPECS[name](folder).open(Context("write"), SCHEMA)
                for part in cut([5, 4]):
                    sink.write(part)
                sink.commit()
            except OSError:
                failed = True
                if sink is not None:
                    sink.abort()
        if failed:
            assert numbers_in(folder) == []
            assert sink is None or files(folder) == {}
        else:
            assert numbers_in(folder) == list(range(9))
        if disturbed.count <= at:
            break
    assert at > 10


@pytest.mark.parametrize("name", PLAIN)
def test_a_new_run_where_another_was_killed_is_refused_or_whole(name: str, tmp_path: Path) -> None:
    trial = Trial(tmp_path, SPECS[name], [5, 4], {1})
    first = trial.begin("first")
    with Disturbed(lambda count: shutil.copytree(first.place, tmp_path / f"kill-{count}")) as disturbed:
        first.go(disturbed.tick)
    refused = 0
    for at in range(disturbed.count):
        place = tmp_path / f"kill-{at}" / "results"
        shown = numbers_in(place)
        try:
            sink = SPECS[name](place).open(Context("write"), SCHEMA)
        except GraphError:
            refused += 1
            assert shown
            assert numbers_in(place) == shown
        else:
            assert numbers_in(place) == []
            sink.write(rows(2, 500))
            sink.commit()
            assert numbers_in(place) == [500, 501]
            assert not list(place.rglob(".penstock-staging-*"))
    assert 0 < refused < disturbed.count


def stores(path: Path, tick: Tick) -> Callable[[pa.RecordBatch, int], None]:
    """A function as the docs of `Callback` advise it, and a log of all it was given."""

    def store(batch: pa.RecordBatch, number: int) -> None:
        with path.with_suffix(".log").open("a") as log:
            log.write(f"{number} {batch.column('n').to_pylist()}\n")
        tick()
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA synchronous = OFF")
        with connection:
            done = connection.execute("INSERT INTO batches (number) VALUES (?) ON CONFLICT DO NOTHING", [number])
            if done.rowcount:
                values = [(row["n"],) for row in batch.to_pylist()]
                connection.executemany("INSERT INTO numbers (n) VALUES (?)", values)
        connection.close()
        tick()

    return store


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_database_keyed_by_the_number_has_every_row_once(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    sizes = data.draw(st.lists(st.integers(0, 9), max_size=6), label="batches")
    barriers = data.draw(st.sets(st.integers(1, 6)), label="checkpoints")
    each = data.draw(st.integers(1, 8), label="rows")
    kills = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4), label="kills")
    folder = tmp_path_factory.mktemp("out")
    path = folder / "database"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE batches (number INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE numbers (n INTEGER)")
    connection.close()

    def work(tick: Tick) -> None:
        Run(Callback(stores(path, tick), rows=each), cut(sizes), barriers, folder).go(tick)

    for at in kills:
        dies(work, at)
    work(lambda: None)
    total = sum(sizes)
    connection = sqlite3.connect(path)
    assert [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY rowid")] == list(range(total))
    connection.close()
    log = path.with_suffix(".log")
    for line in log.read_text().splitlines() if log.exists() else ():
        number, _, given_rows = line.partition(" ")
        first = int(number) * each
        assert given_rows == str(list(range(first, min(first + each, total))))


def test_what_was_collected_before_a_kill_is_collected_again(tmp_path: Path) -> None:
    first = Run(Collect(), cut([5, 3, 6]), {1, 2}, tmp_path / "first")
    first.place.mkdir()
    with Disturbed(lambda count: shutil.copytree(first.place, tmp_path / f"kill-{count}")) as disturbed:
        first.go(disturbed.tick)
    assert disturbed.count > 5
    for at in range(disturbed.count):
        spec = Collect()
        Run(spec, cut([5, 3, 6]), {1, 2}, tmp_path / f"kill-{at}").go()
        assert spec.table().column("n").to_pylist() == list(range(14))
