"""`Parquet`: files that read back as the rows that went in, cut where it says, in folders by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from arrow_rows import ENCODED, column_types, cuts, messy, rows_of, tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.digest import RowDigest
from penstock.pipeline.errors import GraphError, RunError
from penstock.pipeline.schema import event_schema, tensor_type
from penstock.pipeline.sink import Sink
from penstock.sinks.parquet import Parquet

NUMBERS = pa.schema([("n", pa.int64())])


def written(spec: Parquet, schema: pa.Schema, *batches: pa.RecordBatch) -> Path:
    spec.check(schema)
    sink = spec.open(Context("write"), schema)
    for batch in batches:
        sink.write(batch)
    sink.commit()
    return Path(spec.path)


def numbers(rows: int, start: int = 0) -> pa.RecordBatch:
    return pa.record_batch([pa.array(np.arange(start, start + rows))], schema=NUMBERS)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, data: Any, random: Any) -> None:
    kinds = data.draw(st.lists(column_types(dictionaries=False) | st.just(ENCODED[0]), min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 20))
    pairs = [(kind, data.draw(rows_of(kind, rows))) for kind in kinds]
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)], metadata={"penstock.source": "x"})
    parts = [
        pa.record_batch([messy(kind, values[start:stop], random) for kind, values in pairs], schema=schema)
        for start, stop in data.draw(cuts(rows))
    ]
    expected = RowDigest(schema)
    expected.update(pa.record_batch([tidy(kind, values) for kind, values in pairs], schema=schema))
    folder = written(Parquet(tmp_path_factory.mktemp("out"), rows_per_file=9, row_group_rows=4), schema, *parts)
    found = RowDigest(schema)
    for path in sorted(folder.iterdir()):
        table = pq.read_table(path)
        assert table.schema.equals(schema)  # but for the name of list elements
        assert table.schema.metadata == schema.metadata
        for batch in table.to_batches():
            found.update(batch)
    assert found.hexdigest() == expected.hexdigest()


def test_row_groups_and_files_are_cut_at_exact_rows(tmp_path: Path) -> None:
    parts = [numbers(13, start) for start in range(0, 52, 13)]
    folder = written(Parquet(tmp_path / "out", rows_per_file=25, row_group_rows=10), NUMBERS, *parts)
    groups = {}
    for path in sorted(folder.iterdir()):
        meta = pq.read_metadata(path)
        groups[path.name] = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    assert groups == {
        "part-00000.parquet": [10, 10, 5],
        "part-00001.parquet": [5, 10, 10],
        "part-00002.parquet": [2],
    }
    assert ds.dataset(folder).to_table().column("n").to_pylist() == list(range(52))


def test_a_row_group_ends_with_the_row_that_fills_its_bytes(tmp_path: Path) -> None:
    schema = pa.schema([("v", pa.list_(pa.float64()))])
    rows = [[1.0] * n for n in (1, 2, 3, 50, 1, 0, 7)]
    whole = pa.record_batch([pa.array(rows, schema.field(0).type)], schema=schema)
    folder = written(Parquet(tmp_path / "out", row_group_bytes=48), schema, whole)
    meta = pq.read_metadata(folder / "part-00000.parquet")
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [3, 1, 3]


def test_tensors_and_dictionaries_of_different_batches_come_back(tmp_path: Path) -> None:
    kind = pa.dictionary(pa.int16(), pa.utf8())
    schema = event_schema([("s", kind), ("x", tensor_type(pa.float32(), (2, 3)))], source="test")
    batches = []
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    for index, names in enumerate((["a", "b"], ["c", "a"])):
        times = pa.array([index, index + 1], schema.field(0).type)
        encoded = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int16()), pa.array(names[::-1]))
        images = pa.FixedShapeTensorArray.from_numpy_ndarray(values[2 * index : 2 * index + 2])
        seq = pa.array([2 * index, 2 * index + 1], pa.uint64())
        batches.append(pa.record_batch([times, times, seq, encoded, images], schema=schema))
    table = pq.read_table(written(Parquet(tmp_path / "out"), schema, *batches))
    assert table.schema.equals(schema, check_metadata=True)
    assert table.column("s").to_pylist() == ["a", "b", "c", "a"]
    images = table.column("x").combine_chunks()
    np.testing.assert_array_equal(images.to_numpy_ndarray(), values)


def test_a_row_group_may_have_fewer_values_than_its_batches_had_entries(tmp_path: Path) -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    schema = pa.schema([("s", kind)])
    batches = [
        pa.record_batch(
            [pa.DictionaryArray.from_arrays(pa.array([5], pa.int8()), pa.array([f"{b}-{i}" for i in range(100)]))],
            schema=schema,
        )
        for b in range(3)
    ]
    table = pq.read_table(written(Parquet(tmp_path / "out"), schema, *batches))
    assert table.column("s").to_pylist() == ["0-5", "1-5", "2-5"]


def test_more_values_than_the_index_type_can_number_is_an_error_that_says_so(tmp_path: Path) -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    schema = pa.schema([("s", kind)])
    sink = Parquet(tmp_path / "out").open(Context("write"), schema)
    for start in (0, 100):
        sink.write(pa.record_batch([pa.array([f"{start + i}" for i in range(100)], kind)], schema=schema))
    with pytest.raises(RunError, match="'s' has 200 different values"):
        sink.commit()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


PARTITIONED = pa.schema([("s", pa.utf8()), ("n", pa.int64()), ("k", pa.int32())])


def partitioned_rows(rows: int) -> pa.RecordBatch:
    names = ["b", "a", None, "x/y=z", "", ".."]
    columns: list[list[Any]] = [
        [names[i * i % 6] for i in range(rows)],
        list(range(rows)),
        [i % 2 for i in range(rows)],
    ]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, PARTITIONED, strict=True)], schema=PARTITIONED)


@pytest.mark.parametrize("columns", ["s", ["k"], ["k", "s"]])
def test_partitions_read_back_as_columns_with_rows_in_order(columns: str | list[str], tmp_path: Path) -> None:
    whole = partitioned_rows(60)
    spec = Parquet(tmp_path / "out", partition_by=columns, row_group_rows=7, rows_per_file=6)
    folder = written(spec, PARTITIONED, *(whole.slice(i, 11) for i in range(0, 60, 11)))
    names = [columns] if isinstance(columns, str) else columns
    flavour = ds.partitioning(pa.schema([PARTITIONED.field(name) for name in names]), flavor="hive")
    table = ds.dataset(folder, partitioning=flavour).to_table().select(PARTITIONED.names)
    assert sorted(table.to_pylist(), key=lambda row: row["n"]) == whole.to_pylist()
    for parent in {path.parent for path in folder.rglob("*.parquet")}:
        parts = sorted(parent.glob("*.parquet"))
        order = [n for path in parts for n in ds.dataset(path).to_table().column("n").to_pylist()]
        assert order == sorted(order)
        assert [pq.read_metadata(path).num_rows for path in parts[:-1]] == [6] * (len(parts) - 1)
    assert all(path.is_relative_to(folder) for path in tmp_path.rglob("*.parquet"))


def test_partitions_do_not_depend_on_batches_or_dictionaries(tmp_path: Path) -> None:
    whole = partitioned_rows(60)
    encoded = whole.set_column(0, "s", whole.column("s").dictionary_encode())
    results = []
    for name, batch, size in (("a", whole, 60), ("b", whole, 7), ("c", encoded, 13)):
        spec = Parquet(tmp_path / name, partition_by="s", row_group_rows=9)
        folder = written(spec, batch.schema, *(batch.slice(i, size) for i in range(0, 60, size)))
        results.append({str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))})
    assert results[0] == results[1] == results[2]


def test_too_many_partitions_are_an_error_not_a_pile_of_open_files(tmp_path: Path) -> None:
    sink = Parquet(tmp_path / "out", partition_by="n").open(Context("write"), PARTITIONED)
    rows = pa.record_batch(
        [pa.nulls(600, pa.utf8()), pa.array(np.arange(600)), pa.nulls(600, pa.int32())], schema=PARTITIONED
    )
    sink.write(rows)
    with pytest.raises(RunError, match="fewer values"):
        sink.commit()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_rows_leaves_its_schema(tmp_path: Path) -> None:
    folder = written(Parquet(tmp_path / "out"), NUMBERS)
    assert pq.read_table(folder).schema == NUMBERS
    assert [path.name for path in folder.iterdir()] == ["part-00000.parquet"]


def test_readers_skip_what_is_staged(tmp_path: Path) -> None:
    folder = written(Parquet(tmp_path / "out"), NUMBERS, numbers(3))
    sink = Parquet(folder, overwrite=True, row_group_rows=2).open(Context("write"), NUMBERS)
    sink.write(numbers(10, 100))
    assert pq.read_table(folder).column("n").to_pylist() == [0, 1, 2]
    sink.commit()
    assert pq.read_table(folder).column("n").to_pylist() == list(range(100, 110))


def test_overwrite_removes_older_parts_but_refuses_files_of_others(tmp_path: Path) -> None:
    folder = written(Parquet(tmp_path / "out", rows_per_file=1), NUMBERS, numbers(5))
    written(Parquet(folder, overwrite=True), NUMBERS, numbers(2))
    assert [path.name for path in folder.iterdir()] == ["part-00000.parquet"]
    (folder / "mine").mkdir()
    (folder / "mine" / "precious.parquet").write_bytes(b"")
    with pytest.raises(GraphError, match=r"precious\.parquet"):
        Parquet(folder, overwrite=True).check_target()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"partition_by": "nope"}, "no column 'nope'"),
        ({"partition_by": "x"}, "cannot partition by 'x'"),
        ({"partition_by": ["n", "x"]}, "cannot partition"),
    ],
)
def test_columns_to_partition_by_are_checked(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=message):
        Parquet(tmp_path / "out", **arguments).check(pa.schema([("n", pa.int64()), ("x", pa.float64())]))


def test_something_must_be_left_to_write(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="nothing is left"):
        Parquet(tmp_path / "out", partition_by="n").check(NUMBERS)


@pytest.mark.parametrize(
    "wrong", [{"rows_per_file": 0}, {"row_group_rows": 0}, {"row_group_bytes": 0}, {"compression": "rar"}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=next(iter(wrong))):
        Parquet(tmp_path / "out", **wrong)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(GraphError, match="is a file"):
        Parquet(tmp_path / "out").check_target()


def resumed(spec: Parquet, state: Any = None) -> Sink:
    sink = spec.open(Context("write", resuming=True), NUMBERS)
    if state is not None:
        sink.restore(state)
    return sink


def shown(folder: Path) -> list[int]:
    return [
        n
        for path in sorted(folder.rglob("part-*.parquet"))
        if ".penstock" not in str(path)
        for n in pq.read_table(path).column("n").to_pylist()
    ]


def test_what_a_checkpoint_holds_appears_when_it_is_stored_and_stays(tmp_path: Path) -> None:
    spec = Parquet(tmp_path / "out", rows_per_file=4, publish="checkpoint")
    sink = spec.open(Context("write"), NUMBERS)
    sink.write(numbers(6))
    state = sink.snapshot()
    sink.write(numbers(3, 6))
    assert shown(tmp_path / "out") == []
    sink.publish(state)
    assert shown(tmp_path / "out") == list(range(6))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    sink.publish(state)
    later = sink.snapshot()
    assert shown(tmp_path / "out") == list(range(6))
    sink.publish(later)
    assert shown(tmp_path / "out") == list(range(9))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    sink.write(numbers(5, 9))
    sink.abort()
    assert shown(tmp_path / "out") == list(range(9))
    assert not list((tmp_path / "out").glob(".penstock*"))


def test_with_the_end_as_the_moment_checkpoints_show_nothing(tmp_path: Path) -> None:
    sink = Parquet(tmp_path / "out").open(Context("write"), NUMBERS)
    sink.write(numbers(6))
    sink.publish(sink.snapshot())
    assert shown(tmp_path / "out") == []
    sink.commit()
    assert shown(tmp_path / "out") == list(range(6))


def test_a_resumed_run_goes_on_behind_what_was_published_and_drops_what_was_not_stored(tmp_path: Path) -> None:
    spec = Parquet(tmp_path / "out", rows_per_file=4, publish="checkpoint")
    sink = spec.open(Context("write"), NUMBERS)
    sink.write(numbers(6))
    state = sink.snapshot()
    sink.publish(state)
    sink.write(numbers(7, 6))  # a whole file and more, lost
    sink.detach()
    assert shown(tmp_path / "out") == list(range(6))
    later = resumed(spec, state)
    later.publish(state)
    later.write(numbers(5, 6))
    assert shown(tmp_path / "out") == list(range(6))
    later.publish(later.snapshot())
    assert shown(tmp_path / "out") == list(range(11))
    later.commit()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"part-{i:05d}.parquet" for i in range(4)]


@pytest.mark.parametrize("old", [0, 5])
def test_rows_behind_a_published_checkpoint_may_be_committed_without_another(old: int, tmp_path: Path) -> None:
    if old:
        written(Parquet(tmp_path / "out", rows_per_file=1), NUMBERS, numbers(old, 100))
    spec = Parquet(tmp_path / "out", publish="checkpoint", overwrite=bool(old))
    sink = spec.open(Context("write"), NUMBERS)
    sink.write(numbers(6))
    state = sink.snapshot()
    sink.publish(state)
    sink.detach()
    later = resumed(spec, state)
    later.write(numbers(3, 6))
    later.commit()
    assert shown(tmp_path / "out") == list(range(9))


def test_older_results_go_with_the_first_publication_and_only_then(tmp_path: Path) -> None:
    folder = written(Parquet(tmp_path / "out", rows_per_file=1), NUMBERS, numbers(5, 100))
    spec = Parquet(folder, publish="checkpoint", overwrite=True)
    sink = spec.open(Context("write"), NUMBERS)
    sink.write(numbers(3))
    first = sink.snapshot()
    assert shown(folder) == list(range(100, 105))
    sink.write(numbers(3, 3))
    second = sink.snapshot()  # taken before the first was stored
    sink.publish(first)
    assert shown(folder) == [0, 1, 2]
    sink.detach()
    later = resumed(spec, second)
    later.publish(second)
    assert shown(folder) == list(range(6))
    later.write(numbers(3, 6))
    later.commit()
    assert shown(folder) == list(range(9))


def test_a_state_does_not_grow_with_what_is_published(tmp_path: Path) -> None:
    sink = Parquet(tmp_path / "out", publish="checkpoint").open(Context("write"), NUMBERS)
    for start in range(0, 30, 3):
        sink.write(numbers(3, start))
        state = sink.snapshot()
        assert list(state["files"]) == [f"part-{start // 3:05d}.parquet"]
        sink.publish(state)
    sink.detach()
    assert shown(tmp_path / "out") == list(range(30))


def test_a_checkpoint_older_than_what_is_visible_is_refused(tmp_path: Path) -> None:
    spec = Parquet(tmp_path / "out", publish="checkpoint")
    sink = spec.open(Context("write"), NUMBERS)
    sink.write(numbers(3))
    first = sink.snapshot()
    sink.publish(first)
    sink.write(numbers(3, 3))
    sink.publish(sink.snapshot())
    sink.detach()
    other = resumed(spec)
    with pytest.raises(RunError, match=r"part-00001\.parquet.*resume from the last checkpoint"):
        other.restore(first)
    other.detach()
    assert shown(tmp_path / "out") == list(range(6))


def test_files_of_a_checkpoint_must_be_as_they_were(tmp_path: Path) -> None:
    spec = Parquet(tmp_path / "out")
    sink = spec.open(Context("write"), NUMBERS)
    sink.write(numbers(3))
    state = sink.snapshot()
    sink.detach()
    path = next((tmp_path / "out").rglob("part-*.parquet"))
    good = path.read_bytes()
    table = pa.table({"n": pa.array(np.arange(4))})
    for damage in (good[:-1], good[:-8] + b"\0" * 8, b"", pq.write_table(table, path) or path.read_bytes()):
        path.write_bytes(damage)
        other = resumed(spec)
        with pytest.raises(RunError, match="start it anew"):
            other.restore(state)
        other.detach()
    path.write_bytes(good)
    other = resumed(spec, state)
    other.commit()
    assert shown(tmp_path / "out") == [0, 1, 2]


@pytest.mark.parametrize("publish", ["end", "checkpoint"])
def test_a_run_without_rows_is_known_to_be_committed(publish: str, tmp_path: Path) -> None:
    old = written(Parquet(tmp_path / "out", rows_per_file=1), NUMBERS, numbers(2))
    spec = Parquet(old, publish=publish, overwrite=True)
    sink = spec.open(Context("write"), NUMBERS)
    state = sink.snapshot()
    assert not sink.is_committed(state)
    sink.commit()
    later = resumed(spec)
    assert later.is_committed(state)
    later.detach()
    assert [path.name for path in old.iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize("publish", ["end", "checkpoint"])
def test_a_run_without_rows_is_committed_when_the_older_results_are_gone(publish: str, tmp_path: Path) -> None:
    columns = {"n": pa.array([1, 2]), "k": pa.array([1, 2], pa.int32())}
    schema = pa.schema([("n", pa.int64()), ("k", pa.int32())])
    folder = written(Parquet(tmp_path / "out", partition_by="k"), schema, pa.record_batch(columns, schema=schema))
    spec = Parquet(folder, partition_by="k", publish=publish, overwrite=True)
    sink = spec.open(Context("write"), schema)
    state = sink.snapshot()
    assert not sink.is_committed(state)
    sink.commit()
    assert not list(folder.rglob("*.parquet"))
    later = spec.open(Context("write", resuming=True), schema)
    assert later.is_committed(state)
    later.detach()


def test_a_checkpoint_closes_partitions_so_that_others_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.sinks.parquet._MOST_PARTITIONS", 2)
    schema = pa.schema([("n", pa.int64()), ("k", pa.int32())])
    sink = Parquet(tmp_path / "out", partition_by="k").open(Context("write"), schema)
    for start in range(0, 6, 2):
        columns = [pa.array([start, start + 1]), pa.array([start, start + 1], pa.int32())]
        sink.write(pa.record_batch(columns, schema=schema))
        sink.snapshot()
    sink.commit()
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_publish_is_end_or_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="publish"):
        Parquet(tmp_path / "out", publish="now")
