"""`ArrowIpc`: one file that reads back as the rows that went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from arrow_rows import ENCODED, column_types, cuts, messy, rows_of, tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.digest import RowDigest
from penstock.pipeline.errors import GraphError, RunError
from penstock.sinks.ipc import ArrowIpc


def written(spec: ArrowIpc, schema: pa.Schema, *batches: pa.RecordBatch) -> pa.ipc.RecordBatchFileReader:
    spec.check(schema)
    sink = spec.open(Context("write"), schema)
    for batch in batches:
        sink.write(batch)
    sink.commit()
    return pa.ipc.open_file(spec.path)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, data: Any, random: Any) -> None:
    kinds = data.draw(st.lists(column_types(dictionaries=False) | st.sampled_from(ENCODED), min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 20))
    pairs = [(kind, data.draw(rows_of(kind, rows))) for kind in kinds]
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)], metadata={"penstock.source": "x"})
    parts = [
        pa.record_batch([messy(kind, values[start:stop], random) for kind, values in pairs], schema=schema)
        for start, stop in data.draw(cuts(rows))
    ]
    expected = RowDigest(schema)
    expected.update(pa.record_batch([tidy(kind, values) for kind, values in pairs], schema=schema))
    spec = ArrowIpc(tmp_path_factory.mktemp("out") / "x.arrow", batch_rows=4)
    with written(spec, schema, *parts) as reader:
        assert reader.schema.equals(schema, check_metadata=True)
        found = RowDigest(schema)
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    for batch in batches:
        batch.validate(full=True)
        found.update(batch)
    assert [batch.num_rows for batch in batches] == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)
    assert found.hexdigest() == expected.hexdigest()


def test_a_dictionary_grows_by_deltas_even_from_nothing(tmp_path: Path) -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    schema = pa.schema([("s", kind)])
    rows = [[None, None], ["b", "a"], ["a", None], ["c", "b"]]
    spec = ArrowIpc(tmp_path / "x.arrow", batch_rows=2)
    with written(spec, schema, *(pa.record_batch([pa.array(r, kind)], schema=schema) for r in rows)) as reader:
        assert reader.read_all().column("s").to_pylist() == [value for row in rows for value in row]
        assert reader.stats.num_dictionary_deltas == 2
        assert reader.stats.num_replaced_dictionaries == 0


def test_more_values_than_the_index_type_can_number_is_an_error_that_says_so(tmp_path: Path) -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    schema = pa.schema([("s", kind)])
    sink = ArrowIpc(tmp_path / "x.arrow", batch_rows=100).open(Context("write"), schema)
    with pytest.raises(RunError, match="wider index type"):
        for start in (0, 100):
            sink.write(pa.record_batch([pa.array([f"{start + i}" for i in range(100)], kind)], schema=schema))
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_ends_with_the_row_that_fills_its_bytes(tmp_path: Path) -> None:
    schema = pa.schema([("b", pa.binary()), ("n", pa.int32())])
    lengths = [10, 10, 100, 0, 500, 20, 20]
    whole = pa.record_batch([pa.array([b"x" * n for n in lengths]), pa.array(lengths, pa.int32())], schema=schema)
    spec = ArrowIpc(tmp_path / "x.arrow", batch_bytes=100)
    with written(spec, schema, *(whole.slice(i, 1) for i in range(len(lengths)))) as reader:
        sizes = [reader.get_batch(i).column("n").to_pylist() for i in range(reader.num_record_batches)]
    assert sizes == [[10, 10, 100], [0, 500], [20, 20]]


def test_uncompressed_files_are_read_in_place(tmp_path: Path) -> None:
    schema = pa.schema([("image", pa.fixed_shape_tensor(pa.uint8(), [4, 4]))])
    images = np.arange(160, dtype=np.uint8).reshape(10, 4, 4)
    batch = pa.record_batch([pa.FixedShapeTensorArray.from_numpy_ndarray(images)], schema=schema)
    spec = ArrowIpc(tmp_path / "x.arrow")
    written(spec, schema, batch)
    before = pa.total_allocated_bytes()
    with pa.memory_map(spec.path) as source:
        column = pa.ipc.open_file(source).get_batch(0).column("image")
        np.testing.assert_array_equal(column.to_numpy_ndarray(), images)
        assert pa.total_allocated_bytes() - before < images.nbytes


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_files_read_the_same(compression: str, tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    batch = pa.record_batch([pa.array(range(1000))], schema=schema)
    small = ArrowIpc(tmp_path / "a.arrow", compression=compression)
    with written(small, schema, batch) as reader:
        assert reader.read_all().column("n").to_pylist() == list(range(1000))
    written(ArrowIpc(tmp_path / "b.arrow"), schema, batch)
    assert Path(small.path).stat().st_size < (tmp_path / "b.arrow").stat().st_size


@pytest.mark.parametrize("wrong", [{"batch_rows": 0}, {"batch_bytes": 0}, {"compression": "snappy"}])
def test_wrong_arguments_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=next(iter(wrong))):
        ArrowIpc(tmp_path / "x.arrow", **wrong)  # type: ignore[arg-type]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="a folder"):
        ArrowIpc(tmp_path, overwrite=True).check_target()
