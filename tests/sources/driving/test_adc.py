"""Raw radar cubes: every order of numbers against a plain loop, cut files, packed files, and resumption."""

from __future__ import annotations

import gzip
import itertools
import pickle
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import penstock.sources.driving._adc_reader as adc_reader
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving.adc import INTERLEAVES, Adc, inspect_adc, open_adc

SHAPE = (3, 4, 4, 2)  # chirps, samples, rx, I and Q
FRAME = 2 * 3 * 4 * 4 * 2
START = 1_700_000_000_000_000_001


def place(interleave: str, chirp: int, sample: int, rx: int, q: int, shape: tuple[int, ...] = SHAPE) -> int:
    """Where in a frame the number of a cube's place is, as TI's report says."""
    _, samples, receivers, _ = shape
    start = chirp * samples * receivers * 2
    if interleave == "iiqq":
        return start + rx * samples * 2 + sample // 2 * 4 + q * 2 + sample % 2
    if interleave == "lanes4":
        return start + sample * 8 + q * 4 + rx
    return start + (sample * receivers + rx) * 2 + q


def spec(path: Any, **options: Any) -> Adc:
    chirps, samples, rx, _ = SHAPE
    return Adc(path, **{"chirps": chirps, "samples": samples, "rx": rx, "frame_period": "50ms", **options})


def read(source: Adc, position: dict[str, Any] | None = None) -> tuple[list[Any], np.ndarray, list[Any], list[Any]]:
    """(ts_event, ts_recv, seq, frame) of every row, the cubes, bad records, and positions with the rows before them."""
    rows, cubes, bad, after = [], [np.empty((0, source.chirps, source.samples, source.rx, 2), np.int16)], [], []
    reader = source.open(Context("read"), None, position)
    for block in reader.blocks():
        decoded = reader.decode(block)
        assert sum(b.num_rows for b in decoded.batches) + len(decoded.bad) == block.records
        for batch in decoded.batches:
            assert batch.schema.equals(source.schema, check_metadata=True)
            batch.validate(full=True)
            times = [batch.column(name).cast("int64").to_pylist() for name in ("ts_event", "ts_recv")]
            rows += list(zip(*times, batch["seq"].to_pylist(), batch["frame"].to_pylist(), strict=True))
            cubes.append(batch["cube"].to_numpy_ndarray())
        bad += decoded.bad
        after.append((dict(block.after), len(rows)))
    reader.close()
    return rows, np.concatenate(cubes), bad, after


def numbers(frames: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=frames))
    return rng.integers(-(1 << 15), 1 << 15, (frames, int(np.prod(shape))), dtype=np.int16)


@pytest.mark.parametrize("offset_binary", [False, True])
@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_every_number_is_where_the_report_puts_it(tmp_path: Path, interleave: str, offset_binary: bool) -> None:
    raw = numbers(5)
    stored = raw.view(np.uint16) ^ np.uint16(0x8000) if offset_binary else raw
    (tmp_path / "a.bin").write_bytes(stored.tobytes())
    source = spec(tmp_path / "a.bin", interleave=interleave, offset_binary=offset_binary, start=START)
    rows, cubes, bad, _ = read(source)
    assert bad == []
    assert rows == [(START + i * 50_000_000, START + i * 50_000_000, i, i) for i in range(5)]
    for at in itertools.product(*(range(n) for n in SHAPE)):
        assert (cubes[(slice(None), *at)] == raw[:, place(interleave, *at)]).all()


@given(chirps=st.integers(1, 4), half=st.integers(1, 5), rx=st.integers(1, 5), data=st.data())
def test_any_size_is_arranged_as_a_plain_loop_does(chirps: int, half: int, rx: int, data: st.DataObject) -> None:
    interleave = data.draw(st.sampled_from(INTERLEAVES))
    shape = (chirps, 2 * half, 4 if interleave == "lanes4" else rx, 2)
    raw, cube = numbers(2, shape), np.empty((2, *shape), np.int16)
    adc_reader.arrange(raw, cube, interleave, offset_binary=False)
    for at in itertools.product(*(range(n) for n in shape)):
        assert (cube[(slice(None), *at)] == raw[:, place(interleave, *at, shape)]).all()


def test_reading_goes_on_behind_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(numbers(7).tobytes() + b"tail")
    monkeypatch.setattr(adc_reader, "BLOCK_BYTES", 2 * FRAME)
    rows, cubes, bad, after = read(spec(tmp_path / "a.bin"))
    assert (len(rows), len(bad), len(after)) == (7, 1, 4)
    for position, done in after:
        left, rest, wrong, _ = read(spec(tmp_path / "a.bin"), position)
        assert left == rows[done:]
        assert (rest == cubes[done:]).all()
        assert len(wrong) == (position["frame"] < 8)


@pytest.mark.parametrize("cut", [1, 2, FRAME - 1])
def test_a_cut_last_frame_is_put_aside_with_its_bytes(tmp_path: Path, cut: int) -> None:
    data = numbers(3).tobytes()
    (tmp_path / "a.bin").write_bytes(data[:-cut])
    rows, _, bad, _ = read(spec(tmp_path / "a.bin"))
    assert len(rows) == 2
    assert (bad[0].seq, bad[0].data) == (2, data[2 * FRAME : -cut])
    assert f"frame 2, byte {2 * FRAME}" in bad[0].place
    found = inspect_adc(tmp_path / "a.bin", chirps=3, samples=4, rx=4, frame_period="50ms")
    assert (found["messages"], found["problem"] is not None) == (2, True)
    assert found["time"]["end_ns"] == 50_000_000


def test_packed_files_and_urls_are_read_alike(tmp_path: Path) -> None:
    data = numbers(4).tobytes()
    (tmp_path / "a.bin.gz").write_bytes(gzip.compress(data))
    fsspec.filesystem("memory").pipe("/adc/a.bin", data)
    one, two = read(spec(tmp_path / "a.bin.gz")), read(spec("memory://adc/a.bin"))
    assert one[0] == two[0]
    assert (one[1] == two[1]).all()
    packed = (tmp_path / "a.bin.gz").read_bytes()
    (tmp_path / "cut.bin.gz").write_bytes(packed[: len(packed) // 2])
    rows, _, bad, _ = read(spec(tmp_path / "cut.bin.gz"))
    assert len(rows) < 4
    assert "gzip" in bad[-1].error


def test_frames_beyond_the_range_of_their_time_are_put_aside(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(numbers(3).tobytes())
    rows, _, bad, _ = read(spec(tmp_path / "a.bin", start=(1 << 63) - 60_000_000))
    assert (len(rows), len(bad)) == (2, 1)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_any_bytes_are_frames_or_put_aside(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adc_reader, "BLOCK_BYTES", 2 * FRAME)
    rng = np.random.Generator(np.random.Philox(key=seed))
    path = tmp_path / "a.bin"
    for _ in range(300 if seed == 1 else 10_000):
        data = b"\1" + rng.bytes(int(rng.integers(0, 6 * FRAME)))  # never begins like a packed file
        path.write_bytes(data)
        source = spec(path, interleave=INTERLEAVES[int(rng.integers(3))])
        rows, cubes, bad, _ = read(source, {"frame": int(rng.integers(3))} if rng.integers(2) else None)
        first = rows[0][2] if rows else bad[0].seq if bad else 0
        put_aside = sum(len(record.data) for record in bad)
        assert not (rows or bad) or cubes.nbytes + put_aside == len(data) - first * FRAME


def test_what_is_known_of_the_radar_is_in_the_schema(tmp_path: Path) -> None:
    source = spec("a.bin", sample_rate=5e6, slope=60e12, tx_pattern="0,1", start="2026-01-01")
    found = {k.decode(): v.decode() for k, v in source.schema.metadata.items()}
    assert found["penstock.sample_rate"] == "5000000.0"
    assert (found["penstock.tx_pattern"], found["penstock.interleave"]) == ("0,1", "iiqq")
    assert found["penstock.clock"] == "utc"
    assert "penstock.chirp_period" not in found
    assert pickle.loads(pickle.dumps(source)) == source
    assert open_adc("a.bin", chirps=3, samples=4, rx=4, frame_period="50ms") == spec("a.bin")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"chirps": 0}, "positive sizes"),
        ({"interleave": "qi"}, "choose one of"),
        ({"samples": 5}, "even"),
        ({"interleave": "lanes4", "rx": 2}, "four receivers"),
        ({"frame_period": 0}, "above 0"),
        ({"start": "noon"}, "ISO 8601"),
        ({"chirps": 1 << 20, "samples": 1 << 20}, "beyond the limit"),
    ],
)
def test_wrong_arguments_are_refused_with_a_way_out(options: dict[str, Any], what: str) -> None:
    with pytest.raises(GraphError, match=what):
        spec("a.bin", **options)


def test_an_empty_file_and_a_strange_position_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read(spec(tmp_path / "a.bin"))
    (tmp_path / "a.bin").write_bytes(b"\1")
    with pytest.raises(FormatError, match="a position of a raw recording"):
        read(spec(tmp_path / "a.bin"), {"frame": -1})
