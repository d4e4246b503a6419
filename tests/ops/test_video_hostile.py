"""Damaged units of video: every row is a frame, put aside or counted, none twice, whatever the bytes are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("av")

from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import run_operator
from penstock.ops._video_units import content_of, guessed_codec
from penstock.ops.video import DecodeVideo
from penstock.pipeline._nal import numbering_of, slice_of
from penstock.pipeline.context import Context
from penstock.sources.driving.video import Video
from video_files import SIZE, write_video

SPEC = DecodeVideo(*SIZE, max_pixels=1 << 20)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[pa.RecordBatch]:
    folder, found = tmp_path_factory.mktemp("video"), []
    for kind in ("mp4", "hevc", "mjpeg"):
        spec = Video(write_video(folder / f"a.{kind}", kind, frames=14, gop=5))
        reader = spec.open(Context("read"))
        found += [batch for block in reader.blocks() for batch in reader.decode(block).batches]
        reader.close()
    return found


def mutated(rows: pa.RecordBatch, rng: np.random.Generator, others: list[bytes]) -> pa.RecordBatch:
    """Rows with a few units changed, lost, doubled or swapped."""
    data = rows.column("data").to_pylist()
    order = list(range(len(data)))
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(len(order))), int(rng.integers(7))
        unit = bytearray(data[order[at]] or b"")
        place = int(rng.integers(len(unit) + 1))
        if kind == 0:
            for _ in range(int(rng.integers(1, 6))):
                if unit:
                    unit[int(rng.integers(len(unit)))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del unit[place:]
        elif kind == 2:
            other = others[int(rng.integers(len(others)))]
            unit[place : place + 16] = other[: int(rng.integers(len(other)))]
        elif kind == 3:
            unit[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\0\0\1\x67"])
        elif kind == 4 and len(order) > 2:
            del order[at]
            continue
        elif kind == 5:
            order.insert(at, order[at])
            continue
        else:
            order[at], order[0] = order[0], order[at]
            continue
        data[order[at]] = bytes(unit)
    column = pa.array(data, pa.large_binary())
    changed = rows.set_column(rows.schema.get_field_index("data"), rows.schema.field("data"), column)
    if rng.integers(4) == 0:
        changed = changed.drop_columns(["codec"])
    return changed.take(pa.array(order))


def fuzz(originals: list[pa.RecordBatch], cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    others = [unit for rows in originals for unit in rows.column("data").to_pylist()]
    for case in range(cases):
        rows = mutated(originals[case % len(originals)], rng, others)
        try:
            got = run_operator(SPEC, rows, sizes=5, snapshot=case % 4 == 0)
            assert rows.num_rows == got.rows.num_rows + len(got.bad) + sum(got.dropped.values())
        except BaseException as error:
            error.add_note(f"case {case} of seed {seed}")
            raise


def test_damaged_rows_are_accounted_for(originals: list[pa.RecordBatch]) -> None:
    fuzz(originals, 300, 1)


@pytest.mark.nightly
def test_many_damaged_rows_are_accounted_for(originals: list[pa.RecordBatch]) -> None:
    fuzz(originals, 10_000, 2)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), codec=st.sampled_from(["h264", "h265", "jpeg"]))
def test_headers_of_any_bytes_are_read_or_refused(data: bytes, codec: str) -> None:
    for unit in (data, b"\0\0\1" + data, b"\0\0\0\1\x67" + data + b"\0\0\1\x06" + data):
        guessed_codec(unit)
        numbering = numbering_of(unit)
        try:
            content = content_of(unit, codec)
        except ValueError:
            continue
        assert content.entry in ("closed", "open", "no")
        if content.slice:
            slice_of(content.slice, numbering)
