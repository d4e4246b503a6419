"""`Quarantine`: exact counts, limits that do not show the order of arrival, files that a crash cannot spoil."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError
from penstock.pipeline.quarantine import Quarantine, read_quarantine
from penstock.version import __version__

RECORDS = st.tuples(
    st.sampled_from(["read", "decode", "decode-2"]),
    st.builds(
        BadRecord,
        place=st.sampled_from(["a, offset 9", "a, offset 10", "a, offset 100", "b"]) | st.text(max_size=5),
        operation=st.sampled_from(["x", "y"]),
        error=st.sampled_from(["bad", "worse"]),
        data=st.binary(max_size=300),
        seq=st.none() | st.integers(0, 20),
    ),
)


def bad(number: int, size: int = 3, seq: int | None = None) -> BadRecord:
    return BadRecord(f"file, offset {number}", "op", "broken", bytes([number % 251]) * size, seq)


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORDS, max_size=30), st.integers(0, 12), st.integers(0, 5_000), st.data())
def test_what_is_kept_does_not_depend_on_the_order_of_arrival(
    records: list[tuple[str, BadRecord]], keep: int, max_bytes: int, data: st.DataObject
) -> None:
    results = []
    for order in (records, data.draw(st.permutations(records))):
        collector = Quarantine(keep=keep, max_bytes=max_bytes)
        for step, record in order:
            collector.add(step, record)
        assert collector.total == len(records)
        assert collector.counts == {
            step: sum(s == step for s, _ in records) for step in dict.fromkeys(s for s, _ in order)
        }
        results.append(collector.records())
    assert results[0] == results[1]
    assert len(results[0]) <= keep
    assert sum(len(record.data) for _, record in results[0]) <= max_bytes


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, max_size=20), st.data())
def test_files_hold_every_record_in_an_order_of_their_own(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, BadRecord]], data: st.DataObject
) -> None:
    folders = []
    for order in (records, data.draw(st.permutations(records))):
        folder = tmp_path_factory.mktemp("quarantine")
        collector = Quarantine(folder, keep=0)
        for step, record in order:
            collector.add(step, record)
        running = [(item.step, item.record()) for item in read_quarantine(folder)]
        collector.close()
        finished = [(item.step, item.record()) for item in read_quarantine(folder)]
        assert running == finished
        assert sorted(map(repr, finished)) == sorted(map(repr, records))
        folders.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert folders[0] == folders[1]
    assert set(folders[0]) == ({"run-00000.ndjson", "run-00000.blobs"} if records else set())


def test_records_are_ordered_by_step_then_position_then_the_numbers_in_their_place() -> None:
    collector = Quarantine()
    for step, number, seq in (("b", 1, 0), ("a", 100, None), ("a", 9, None), ("a", 5, 7), ("a", 6, 2)):
        collector.add(step, bad(number, seq=seq))
    places = [(step, record.place) for step, record in collector.records()]
    assert places == [
        ("a", "file, offset 6"),
        ("a", "file, offset 5"),
        ("a", "file, offset 9"),
        ("a", "file, offset 100"),
        ("b", "file, offset 1"),
    ]


def test_a_context_hands_its_records_over_and_counts_them() -> None:
    collector = Quarantine()
    context = Context("decode", quarantine=collector.add)
    context.quarantine(bad(1))
    assert collector.records() == [("decode", bad(1))]
    assert context.metrics.quarantined == collector.total == 1


def test_threads_lose_nothing(tmp_path: Path) -> None:
    collector = Quarantine(tmp_path, keep=50)
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        start.wait()
        for i in range(100):
            collector.add("step", bad(i * 8 + thread, size=1 + i % 7, seq=i * 8 + thread))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collector.close()
    assert collector.total == 800
    assert [record.seq for _, record in collector.records()] == list(range(50))
    found = read_quarantine(tmp_path)
    assert [item.seq for item in found] == list(range(800))
    assert all(item.data() == bad(int(item.seq or 0), size=1 + (item.seq or 0) // 8 % 7).data for item in found)


def test_a_later_run_leaves_the_records_of_earlier_ones(tmp_path: Path) -> None:
    for number in range(3):
        collector = Quarantine(tmp_path)
        collector.add("step", bad(number))
        collector.close()
    assert [(item.name, item.record()) for item in read_quarantine(tmp_path)] == [
        (f"{number:05d}:0", bad(number)) for number in range(3)
    ]


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_run_that_begins_anew_counts_and_keeps_each_record_once(tmp_path: Path, on_disk: bool) -> None:
    collector = Quarantine(tmp_path if on_disk else None, keep=3)
    for number in range(5):
        collector.add("step", bad(number, size=40))
    collector.empty()
    for number in range(2):
        collector.add("step", bad(number))
    assert collector.counts == {"step": 2}
    assert [record for _, record in collector.records()] == [bad(0), bad(1)]
    collector.close()
    if on_disk:
        assert [item.record() for item in read_quarantine(tmp_path)] == [bad(0), bad(1)]


def test_two_runs_at_once_do_not_share_files(tmp_path: Path) -> None:
    first, second = Quarantine(tmp_path), Quarantine(tmp_path)
    first.add("step", bad(1))
    second.add("step", bad(2))
    second.close()
    first.close()
    assert [item.place for item in read_quarantine(tmp_path)] == ["file, offset 1", "file, offset 2"]


def test_a_killed_run_leaves_its_records_readable(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from penstock.pipeline.context import BadRecord\n"
        "from penstock.pipeline.quarantine import Quarantine\n"
        "q = Quarantine(sys.argv[1])\n"
        "for i in range(5): q.add('step', BadRecord(f'offset {i}', 'op', 'broken', b'x' * i, i))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert [(item.seq, item.data()) for item in read_quarantine(tmp_path)] == [(i, b"x" * i) for i in range(5)]
    later = Quarantine(tmp_path)
    later.add("step", bad(9))
    later.close()
    assert len(read_quarantine(tmp_path)) == 6


def test_a_line_that_a_killed_process_did_not_finish_is_not_a_record(tmp_path: Path) -> None:
    collector = Quarantine(tmp_path)
    collector.add("step", bad(1))
    collector.add("step", bad(2))
    index = tmp_path / "run-00000.open.ndjson"
    whole = index.read_bytes()
    for end in range(len(whole)):
        index.write_bytes(whole[:end])
        assert len(read_quarantine(tmp_path)) == whole[:end].count(b"\n")


def test_a_record_says_which_version_put_it_aside(tmp_path: Path) -> None:
    collector = Quarantine(tmp_path)
    collector.add("step", bad(1))
    assert [item.decoder for item in read_quarantine(tmp_path)] == [f"penstock {__version__}"]
    collector.close()
    index = tmp_path / "run-00000.ndjson"
    line = json.loads(index.read_text())
    assert line.pop("decoder") == f"penstock {__version__}"
    index.write_text(json.dumps(line) + "\n")  # a folder of a version that did not say
    assert [item.decoder for item in read_quarantine(tmp_path)] == [None]


def test_a_run_that_is_taken_over_keeps_the_versions_that_were_there(tmp_path: Path) -> None:
    first = Quarantine(tmp_path)
    first.add("step", bad(1))
    state = first.snapshot()
    first.detach()
    index = tmp_path / "run-00000.open.ndjson"
    index.write_text(index.read_text().replace(f"penstock {__version__}", "penstock 0.0.1"))
    second = Quarantine(tmp_path)
    second.restore(state)
    second.add("step", bad(2))
    second.close()
    assert [item.decoder for item in read_quarantine(tmp_path)] == ["penstock 0.0.1", f"penstock {__version__}"]


def test_damage_in_a_finished_run_is_named(tmp_path: Path) -> None:
    collector = Quarantine(tmp_path)
    collector.add("step", bad(1, size=40))
    collector.close()
    index, blobs = tmp_path / "run-00000.ndjson", tmp_path / "run-00000.blobs"
    line = json.loads(index.read_text())
    for change in ({"offset": -1}, {"nbytes": 1 << 60}, {"seq": "x"}, {"step": 3}, {"decoder": 3}):
        index.write_text(json.dumps(line | change) + "\n")
        with pytest.raises(FormatError, match="line 1"):
            read_quarantine(tmp_path)
    index.write_text(json.dumps(line) + "\n")
    blobs.write_bytes(b"y" * 40)
    with pytest.raises(FormatError, match="offset 1"):
        read_quarantine(tmp_path)[0].data()


def test_file_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    record = BadRecord("caf\udce9.mcap, offset 1", "op", "broken\nacross lines", b"")
    collector = Quarantine(tmp_path)
    collector.add("step", record)
    collector.close()
    assert read_quarantine(tmp_path)[0].record() == record


def test_no_record_no_folder_and_none_after_the_end(tmp_path: Path) -> None:
    collector = Quarantine(tmp_path / "unused")
    collector.close()
    collector.close()
    assert not (tmp_path / "unused").exists()
    with pytest.raises(ValueError, match="too late"):
        collector.add("step", bad(1))
    with pytest.raises(FileNotFoundError):
        read_quarantine(tmp_path / "unused")


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="keep=-1"):
        Quarantine(keep=-1)
