"""What every file sink owes: the same files for the same rows, nothing half-written, and a way on behind a snapshot."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.json
import pytest
from arrow_rows import ENCODED, column_types, cuts, messy, rows_of, tidy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, RunError
from penstock.pipeline.sink import Sink, SinkSpec
from penstock.sinks.ipc import ArrowIpc
from penstock.sinks.jsonl import JsonLines
from penstock.sinks.parquet import Parquet

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.dictionary(pa.int8(), pa.utf8())), ("b", pa.binary())])

TYPES = column_types(dictionaries=False) | st.sampled_from(ENCODED)
Make = Callable[[Path], SinkSpec]
SMALL: dict[str, Make] = {
    "parquet": lambda folder: Parquet(folder / "out", rows_per_file=7, row_group_rows=3, row_group_bytes=400),
    "partitioned": lambda folder: Parquet(folder / "out", rows_per_file=7, row_group_rows=5, partition_by="s"),
    "arrow": lambda folder: ArrowIpc(folder / "out.arrow", batch_rows=3, batch_bytes=400),
    "jsonl": lambda folder: JsonLines(folder / "out.jsonl"),
    "gzip": lambda folder: JsonLines(folder / "out.jsonl.gz"),
}
sinks = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())


def batches(rows: int, size: int, start: int = 0) -> list[pa.RecordBatch]:
    numbers = list(range(start, start + rows))
    columns = [numbers, [f"k{n * n % 3}" for n in numbers], [None if n % 4 == 0 else b"x" * (n % 5) for n in numbers]]
    whole = pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    return [whole.slice(at, min(size, rows - at)) for at in range(0, rows, size)]


def opened(spec: SinkSpec, schema: pa.Schema = SCHEMA) -> Sink:
    spec.check(schema)
    return spec.open(Context("write"), schema)


def resuming(spec: SinkSpec) -> Sink:
    return spec.open(Context("write", resuming=True), SCHEMA)


def written(spec: SinkSpec, parts: list[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> None:
    sink = opened(spec, schema)
    for part in parts:
        sink.write(part)
    sink.commit()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def numbers_in(folder: Path) -> list[int]:
    """Column n of everything visible under a final name, sorted."""
    found: list[int] = []
    for name in files(folder):
        path = folder / name
        if ".penstock-staging-" in name:
            continue
        if name.endswith(".parquet"):
            found += ds.dataset(path).to_table(columns=["n"]).column("n").to_pylist()
        elif name.endswith(".arrow"):
            found += ds.dataset(path, format="ipc").to_table().column("n").to_pylist()
        else:
            with pa.input_stream(path) as stream:  # decompresses by the name
                found += pyarrow.json.read_json(stream).column("n").to_pylist()
    return sorted(found)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data(), st.randoms(use_true_random=False))
def test_the_same_rows_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, random: Random
) -> None:
    kinds = data.draw(st.lists(TYPES, min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 20))
    columns = [data.draw(rows_of(kind, rows)) for kind in kinds]
    pairs = list(zip(kinds, columns, strict=True))
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    plain = pa.record_batch([tidy(kind, values) for kind, values in pairs], schema=schema)
    pieces = data.draw(cuts(rows))
    other = [
        pa.record_batch([messy(kind, values[start:stop], random) for kind, values in pairs], schema=schema)
        for start, stop in pieces
    ]
    for make in (SMALL["parquet"], SMALL["arrow"], SMALL["jsonl"], SMALL["gzip"]):
        folders = []
        for parts in ([plain], other):
            folder = tmp_path_factory.mktemp("out")
            written(make(folder), parts, schema)
            folders.append(files(folder))
        assert folders[0] == folders[1]


@sinks
@pytest.mark.parametrize("size", [1, 4, 50])
def test_every_row_arrives_once(make: Make, size: int, tmp_path: Path) -> None:
    written(make(tmp_path), batches(40, size))
    assert numbers_in(tmp_path) == list(range(40))
    assert not [name for name in files(tmp_path) if "staging" in name]


@sinks
def test_nothing_is_visible_before_commit_and_abort_removes_everything(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path))
    for batch in batches(40, 10):
        sink.write(batch)
        assert all(".penstock-staging-" in name for name in files(tmp_path))
    sink.abort()
    assert list(tmp_path.iterdir()) == []


@sinks
def test_abort_before_the_first_row_removes_everything(make: Make, tmp_path: Path) -> None:
    opened(make(tmp_path / "deep" / "er")).abort()
    assert list(tmp_path.iterdir()) == []


@sinks
def test_abort_leaves_files_of_others_alone(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    sink = opened(make(tmp_path))
    sink.write(batches(9, 9)[0])
    sink.abort()
    assert files(tmp_path) == {"out/notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["parquet", "partitioned"])
def test_abort_after_a_commit_that_failed_half_way_takes_back_what_was_renamed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(SMALL[name](tmp_path))
    for batch in batches(40, 10):
        sink.write(batch)
    replace, calls = Path.replace, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 3:  # the list, one file, then this
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        sink.commit()
    assert numbers_in(tmp_path) != []
    monkeypatch.undo()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import importlib.util
spec = importlib.util.spec_from_file_location("contract", sys.argv[2])
contract = importlib.util.module_from_spec(spec)
sys.modules["contract"] = contract
spec.loader.exec_module(contract)
sink = contract.opened(contract.SMALL[sys.argv[3]](Path(sys.argv[4])))
for batch in contract.batches(40, 10):
    sink.write(batch)
if sys.argv[5] == "commit":
    replace, left = Path.replace, [2]
    def dying(self, target):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return replace(self, target)
    Path.replace = dying
    sink.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(name: str, folder: Path, when: str) -> None:
    tests = Path(__file__).resolve().parent.parent
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(tests), __file__, name, str(folder), when],
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == -9, process.stderr


@pytest.mark.parametrize("name", SMALL)
def test_a_killed_run_leaves_no_file_under_a_final_name_and_the_next_run_is_whole(name: str, tmp_path: Path) -> None:
    killed(name, tmp_path, "write")
    left = files(tmp_path)
    assert left
    assert all(".penstock-staging-" in path for path in left)
    written(SMALL[name](tmp_path), batches(40, 10))
    assert numbers_in(tmp_path) == list(range(40))
    assert not [path for path in files(tmp_path) if "staging" in path]


@pytest.mark.parametrize("name", ["parquet", "partitioned"])
def test_a_run_killed_while_renaming_is_undone_by_the_next(name: str, tmp_path: Path) -> None:
    killed(name, tmp_path, "commit")
    assert 0 < len(numbers_in(tmp_path / "out")) < 80
    sink = opened(SMALL[name](tmp_path))
    assert all(".penstock-staging-" in path for path in files(tmp_path))
    sink.write(batches(3, 3)[0])
    sink.commit()
    assert numbers_in(tmp_path) == [0, 1, 2]


@sinks
def test_results_that_exist_are_refused_before_a_run_does_any_work_but_may_be_explained(
    make: Make, tmp_path: Path
) -> None:
    spec = make(tmp_path)
    written(spec, batches(5, 5))
    before = files(tmp_path)
    spec.check(SCHEMA)
    with pytest.raises(GraphError, match="overwrite=True"):
        spec.check_target()
    with pytest.raises(GraphError, match="overwrite=True"):
        spec.open(Context("write"), SCHEMA)
    assert files(tmp_path) == before


@sinks
def test_overwrite_replaces_results_only_when_the_run_commits(make: Make, tmp_path: Path) -> None:
    written(make(tmp_path), batches(40, 10))
    before = files(tmp_path)
    spec = replace(make(tmp_path), overwrite=True)  # type: ignore[type-var]
    sink = opened(spec)
    sink.write(batches(3, 3, start=100)[0])
    sink.abort()
    assert files(tmp_path) == before
    written(spec, batches(3, 3, start=100))
    assert numbers_in(tmp_path) == [100, 101, 102]


@sinks
def test_two_runs_cannot_write_to_one_place_at_once(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path))
    with pytest.raises(RunError, match="another run"):
        opened(make(tmp_path))
    sink.write(batches(3, 3)[0])
    sink.commit()
    assert numbers_in(tmp_path) == [0, 1, 2]


@sinks
@pytest.mark.parametrize("at", range(5))
def test_a_run_restored_from_any_snapshot_has_every_row_once(make: Make, at: int, tmp_path: Path) -> None:
    spec, parts = make(tmp_path), batches(40, 10)
    sink = opened(spec)
    state = sink.snapshot()
    for index, part in enumerate(parts):
        if index == at:
            state = sink.snapshot()
        sink.write(part)
    if at == 4:
        state = sink.snapshot()
    state = pickle.loads(pickle.dumps(state))
    sink.detach()
    later = resuming(spec)
    assert not later.is_committed(state)
    later.restore(state)
    for part in parts[at:]:
        later.write(part)
    later.commit()
    assert numbers_in(tmp_path) == list(range(40))
    assert not [name for name in files(tmp_path) if "staging" in name]


@pytest.mark.parametrize("name", ["arrow", "jsonl"])
def test_snapshots_do_not_show_in_a_single_file(name: str, tmp_path: Path) -> None:
    written(SMALL[name](tmp_path / "a"), batches(40, 10))
    sink = opened(SMALL[name](tmp_path / "b"))
    for part in batches(40, 7):
        sink.write(part)
        sink.snapshot()
    sink.commit()
    assert files(tmp_path / "a") == files(tmp_path / "b")


@sinks
def test_what_was_committed_is_known_and_the_resumed_run_leaves_no_trace(make: Make, tmp_path: Path) -> None:
    spec = make(tmp_path)
    sink = opened(spec)
    for part in batches(40, 10):
        sink.write(part)
    early = sink.snapshot()
    sink.write(batches(3, 3, start=40)[0])
    state = pickle.loads(pickle.dumps(sink.snapshot()))
    assert not sink.is_committed(state)
    sink.commit()
    before = files(tmp_path)
    later = resuming(spec)
    assert later.is_committed(state)
    if not isinstance(spec, Parquet):  # a part of the files is there too
        assert not later.is_committed(early)
    later.detach()
    assert files(tmp_path) == before


@sinks
def test_the_same_results_of_an_older_run_are_not_taken_for_committed(make: Make, tmp_path: Path) -> None:
    written(make(tmp_path), batches(8, 8))
    before = files(tmp_path)
    spec = replace(make(tmp_path), overwrite=True)  # type: ignore[type-var]
    sink = opened(spec)
    sink.write(batches(8, 8)[0])
    state = sink.snapshot()
    sink.detach()
    later = resuming(spec)
    assert not later.is_committed(state)
    later.restore(state)
    later.commit()
    assert files(tmp_path) == before
    after = resuming(spec)
    assert after.is_committed(state)
    after.detach()


@sinks
def test_what_was_staged_behind_the_snapshot_is_dropped(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path))
    sink.write(batches(8, 8)[0])
    state = sink.snapshot()
    sink.write(batches(60, 60, start=100)[0])
    sink.snapshot()
    sink.write(batches(60, 60, start=200)[0])
    sink.detach()
    later = resuming(make(tmp_path))
    later.restore(state)
    later.write(batches(2, 2, start=8)[0])
    later.commit()
    assert numbers_in(tmp_path) == list(range(10))


@sinks
def test_a_run_that_lets_go_shows_nothing_keeps_what_it_staged_and_frees_the_place(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path))
    for part in batches(40, 10):
        sink.write(part)
    sink.snapshot()
    staged = {name for name in files(tmp_path) if not name.endswith(".lock")}
    sink.detach()
    sink.detach()
    sink.abort()
    assert {name for name in files(tmp_path) if not name.endswith(".lock")} == staged
    assert numbers_in(tmp_path) == []
    resuming(make(tmp_path)).abort()
    assert files(tmp_path) == {}


@sinks
def test_a_run_that_lets_go_before_its_first_row_leaves_nothing(make: Make, tmp_path: Path) -> None:
    opened(make(tmp_path / "deep")).detach()
    assert list(tmp_path.iterdir()) == []


@sinks
def test_a_new_run_ignores_what_another_left_staged(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path))
    sink.write(batches(20, 20)[0])
    sink.snapshot()
    sink.detach()
    written(make(tmp_path), batches(3, 3, start=100))
    assert numbers_in(tmp_path) == [100, 101, 102]
    assert not [name for name in files(tmp_path) if "staging" in name]


@sinks
def test_results_that_another_run_wrote_meanwhile_are_not_replaced(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path / "a"))
    sink.write(batches(5, 5)[0])
    state = sink.snapshot()
    sink.detach()
    written(make(tmp_path / "b"), batches(3, 3, start=100))
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    other = resuming(make(tmp_path / "a"))
    with pytest.raises(RunError, match="remove it"):
        other.restore(state)
    other.detach()
    assert numbers_in(tmp_path / "a") == [100, 101, 102]


@sinks
def test_a_resumed_run_waits_for_the_one_before_to_be_gone(make: Make, tmp_path: Path) -> None:
    class Meanwhile(threading.Event):
        """Stands for the time that a killed process takes to let go."""

        def wait(self, timeout: float | None = None) -> bool:
            sink.detach()
            return False

    sink = opened(make(tmp_path))
    sink.write(batches(5, 5)[0])
    state = sink.snapshot()
    later = make(tmp_path).open(Context("write", resuming=True, stop=Meanwhile()), SCHEMA)
    later.restore(state)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(RunError, match="another run"):
        make(tmp_path).open(Context("write", resuming=True, stop=stopped), SCHEMA)
    later.commit()
    assert numbers_in(tmp_path) == list(range(5))


@sinks
def test_a_snapshot_whose_files_are_gone_is_refused(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path / "a"))
    sink.write(batches(5, 5)[0])
    state = sink.snapshot()
    sink.abort()
    other = opened(make(tmp_path / "a"))
    with pytest.raises(RunError, match="start it anew"):
        other.restore(state)
    other.abort()


@sinks
def test_restore_comes_first(make: Make, tmp_path: Path) -> None:
    sink = opened(make(tmp_path))
    state = sink.snapshot()
    sink.write(batches(5, 5)[0])
    with pytest.raises(RunError, match="before the first batch"):
        sink.restore(state)
    sink.abort()


@sinks
def test_specs_pickle_and_open_elsewhere(make: Make, tmp_path: Path) -> None:
    spec = pickle.loads(pickle.dumps(make(tmp_path)))
    assert spec == make(tmp_path)
    written(spec, batches(5, 5))
    assert numbers_in(tmp_path) == list(range(5))


@sinks
def test_what_is_held_back_is_bounded(make: Make, tmp_path: Path) -> None:
    assert 0 < make(tmp_path).state_bound(SCHEMA) < 1 << 30


@pytest.mark.parametrize(
    "kind", [pa.dense_union([pa.field("a", pa.int8())]), pa.list_view(pa.int8()), pa.month_day_nano_interval()]
)
@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_a_type_that_cannot_be_written_is_refused_by_name(kind: pa.DataType, name: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="'odd'"):
        SMALL[name](tmp_path).check(pa.schema([("odd", kind)]))


@sinks
def test_columns_of_one_name_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="rename"):
        make(tmp_path).check(pa.schema([("s", pa.utf8()), ("s", pa.utf8())]))
