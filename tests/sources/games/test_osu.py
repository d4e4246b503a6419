"""osu! replays against osrparse, cut anywhere, and damaged on purpose."""

from __future__ import annotations

import lzma
import random
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.columns import as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.sources.games import _osu_reader
from penstock.sources.games._osu_reader import Piece, _fast, _slow, parse_frames
from penstock.sources.games.osu import Osr, inspect_osr, is_osr, open_osr

FILES = ("ctb", "lazer_standard_format", "mania", "replay", "replay2", "taiko")


def rows_of(spec, position=None, context=None):
    reader = spec.open(context or Context("test"), None, position)
    batches, bad, dropped, blocks = [], [], {}, []
    for block in reader.blocks():
        decoded = reader.decode(block)
        for batch in decoded.batches:
            batch.validate(full=True)
        batches += decoded.batches
        bad += decoded.bad
        blocks.append((block, decoded))
        for name, count in decoded.dropped.items():
            dropped[name] = dropped.get(name, 0) + count
    reader.close()
    return pa.Table.from_batches(batches, spec.schema), bad, dropped, blocks


@pytest.mark.parametrize("name", FILES)
def test_real_replays_equal_osrparse(recordings, name):
    osrparse = pytest.importorskip("osrparse", reason="pip install osrparse, the oracle of this test")
    path = recordings("games/osu_replays") / f"{name}.osr"
    rows, bad, dropped, _ = rows_of(Osr(path))
    peer = osrparse.Replay.from_path(path)
    assert not bad
    assert rows.num_rows == len(peer.replay_data)
    events = peer.replay_data
    times = as_numpy(rows["ts_event"].combine_chunks())
    deltas = np.array([event.time_delta for event in events], np.int64)
    assert np.array_equal(np.diff(times), deltas[1:] * 1_000_000)
    filler = -1 * 1_000_000 if dropped.get("filler frame at the start") == 2 else 0
    ticks = int(times[0]) - int(deltas[0]) * 1_000_000 - filler
    assert abs(ticks / 1e9 - peer.timestamp.timestamp()) < 1e-5
    keys = as_numpy(rows["keys"].combine_chunks())
    if name == "mania":
        assert keys.tolist() == [int(event.keys) for event in events]
        assert rows["x"].null_count == rows.num_rows
    elif name == "ctb":
        assert (keys == 1).tolist() == [event.dashing for event in events]
        assert np.array_equal(as_numpy(rows["x"].combine_chunks()), np.array([e.x for e in events], np.float32))
    else:
        assert keys.tolist() == [int(event.keys) for event in events]
        assert np.array_equal(as_numpy(rows["x"].combine_chunks()), np.array([e.x for e in events], np.float32))
        if name != "taiko":
            assert np.array_equal(as_numpy(rows["y"].combine_chunks()), np.array([e.y for e in events], np.float32))
    assert dropped.get("seed frame", 0) == (peer.rng_seed is not None)


def test_inspect_has_the_header_without_the_name(recordings):
    osrparse = pytest.importorskip("osrparse", reason="pip install osrparse, the oracle of this test")
    for name in FILES:
        path = recordings("games/osu_replays") / f"{name}.osr"
        found, peer = inspect_osr(path), osrparse.Replay.from_path(path)
        assert found["error"] is None
        assert (found["beatmap"], found["score"], found["max_combo"]) == (peer.beatmap_hash, peer.score, peer.max_combo)
        assert found["hits"]["300"] == peer.count_300
        assert found["seed"] == peer.rng_seed
        assert peer.username not in str(found)
        assert is_osr(path.read_bytes()[:65536])


_MOVES = "".join(f"{w}|{w * 1.5}|{300 - w / 7}|{w % 32}," for w in range(1, 400))
FRAMES = f"0|256|-500|0,-1|256|-500|0,{_MOVES}-12345|0|0|77,"
SCORE_ID = struct.pack("<q", 5)


def osr(frames=FRAMES, *, mode=0, version=20210101, packed=None, behind=SCORE_ID, name=b"SECRETNAME"):
    def text(value):
        return b"\x0b" + bytes([len(value)]) + value

    head = struct.pack("<Bi", mode, version) + text(b"0123456789abcdef" * 2) + text(name) + text(b"f" * 32)
    head += struct.pack("<6Hih?i", 1, 2, 3, 4, 5, 6, 7, 8, True, 0) + text(b"0|1,")
    body = lzma.compress(frames.encode(), format=lzma.FORMAT_ALONE) if packed is None else packed
    return head + struct.pack("<qi", 637_450_560_000_000_000, len(body)) + body + behind


def write(tmp_path, data):
    path = tmp_path / "play.osr"
    path.write_bytes(data)
    return path


def test_times_are_the_stamp_plus_the_milliseconds_so_far(tmp_path):
    path = write(tmp_path, osr("5|1.5|2|1,10|3|4|2,-12345|0|0|9,"))
    rows, bad, dropped, _ = rows_of(Osr(path))
    assert not bad
    start = (637_450_560_000_000_000 - 621_355_968_000_000_000) * 100
    assert as_numpy(rows["ts_event"].combine_chunks()).tolist() == [start + 5_000_000, start + 15_000_000]
    assert rows["x"].to_pylist() == [1.5, 3.0]
    assert rows["keys"].to_pylist() == [1, 2]
    assert rows["seq"].to_pylist() == [0, 1]
    assert dropped == {"seed frame": 1}
    assert "SECRET" not in str(inspect_osr(path)) + str(rows.to_pylist())
    assert open_osr(path, match_id="m") == Osr(path, match_id="m")


def test_block_size_and_resume_change_no_row(tmp_path, monkeypatch):
    path = write(tmp_path, osr(FRAMES[:2000] + "oops|1," + FRAMES[2000:]))
    whole, whole_bad, *_ = rows_of(Osr(path))
    monkeypatch.setattr(_osu_reader, "TEXT", 301)
    parts, bad, _, blocks = rows_of(Osr(path))
    assert len(blocks) > 20
    assert parts.equals(whole)
    assert bad == whole_bad
    assert len(bad) >= 1
    for number in range(0, len(blocks), 3):
        later, later_bad, *_ = rows_of(Osr(path), blocks[number][0].after)
        before = sum(batch.num_rows for _, decoded in blocks[: number + 1] for batch in decoded.batches)
        assert later.equals(whole.slice(before))
        assert later_bad == [record for _, decoded in blocks[number + 1 :] for record in decoded.bad]


def test_a_bad_frame_costs_one_record_and_keeps_the_time(tmp_path):
    rows, bad, *_ = rows_of(Osr(write(tmp_path, osr("5|1|2|1,7|x|2|1,9|1|2|1,a|1|2|3,1|2|3,1|2|3|4,"))))
    assert [record.seq for record in bad] == [1, 3, 4]
    assert [record.data for record in bad] == [b"7|x|2|1", b"a|1|2|3", b"1|2|3"]
    times = as_numpy(rows["ts_event"].combine_chunks())
    assert np.diff(times).tolist() == [16_000_000, 2_000_000]


def test_a_frame_that_does_not_end_is_skipped_without_being_held(tmp_path):
    text = "5|1|2|1," + "9" * 600_000 + ",6|3|4|2,"
    rows, bad, *_ = rows_of(Osr(write(tmp_path, osr(text))))
    assert rows["keys"].to_pylist() == [1, 2]
    assert len(bad) == 1
    assert bad[0].seq == 1
    assert rows["seq"].to_pylist() == [0, 2]


def test_a_window_too_large_and_a_cut_stream_are_bad_records(tmp_path):
    packed = bytearray(lzma.compress(FRAMES.encode(), format=lzma.FORMAT_ALONE))
    packed[1:5] = struct.pack("<I", 0x7FFF_FFFF)
    rows, bad, *_ = rows_of(Osr(write(tmp_path, osr(packed=bytes(packed)))))
    assert rows.num_rows == 0
    assert bad[0].operation == "osu.unpack"
    whole = osr(behind=b"")
    rows, bad, *_ = rows_of(Osr(write(tmp_path, whole[:-400])))
    assert rows.num_rows > 0
    assert any("end early" in record.error for record in bad)
    _, bad, *_ = rows_of(Osr(write(tmp_path, osr(behind=b"12345678extra"))))
    assert "follow the frames" in bad[0].error


def test_other_files_are_refused(tmp_path):
    for data in (b"", b"hello world, this is no replay", b"\x09" + osr()[1:], osr()[:30]):
        assert not is_osr(data)
        with pytest.raises(FormatError):
            rows_of(Osr(write(tmp_path, data)))


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FRAME = st.tuples(st.integers(-12345, 10**6), NUMBERS, st.floats(-1e3, 1e3), st.integers(0, 40))


@given(st.lists(FRAME, min_size=1, max_size=20), st.booleans(), st.integers(0, 3))
@settings(max_examples=80)
def test_the_fast_parser_gives_what_the_plain_one_gives(frames, mania, first):
    text = "".join(f"{w}|{int(abs(x)) % 1000 if mania else x!r}|{y!r}|{z}," for w, x, y, z in frames).encode()
    piece = Piece(text, 0, 5, first)
    fast, slow = _fast(piece, mania), _slow(piece, mania)
    if fast is not None:
        for name in ("numbers", "times", "x", "y", "keys"):
            assert np.array_equal(getattr(fast, name), getattr(slow, name)), name
        for name in ("seeds", "seed", "fillers", "end_ms", "bad"):
            assert getattr(fast, name) == getattr(slow, name)


@given(st.binary(max_size=200) | st.text("0123456789|,.-eE+ x", max_size=200).map(str.encode), st.booleans())
@settings(max_examples=150)
def test_any_text_is_rows_drops_and_bad_records(text, mania):
    text = text or b","
    found = parse_frames(Piece(text, 0, 0, 0), mania=mania)
    count = text.removesuffix(b",").count(b",") + 1
    assert len(found.numbers) + found.seeds + found.fillers + len(found.bad) == count
    if (fast := _fast(Piece(text, 0, 0, 0), mania)) is not None:
        slow = _slow(Piece(text, 0, 0, 0), mania)
        assert np.array_equal(fast.times, slow.times)
        assert not slow.bad


def damaged(tmp_path, seeds):
    data = osr()
    read = 0
    for seed in seeds:
        rng = random.Random(seed)
        hurt = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(hurt) or 1)
            kind = rng.randrange(5)
            if kind == 0 and hurt:
                hurt[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del hurt[at:]
            elif kind == 2:
                hurt[at:at] = hurt[at : at + rng.randrange(100)]
            elif kind == 3:
                place = data.index(b"\x5d\x00\x00") + rng.randrange(-4, 13)
                hurt[place : place + 1] = bytes([rng.choice([0, 1, 127, 128, 255])])
            else:
                hurt[at : at + 4] = b"\xff\xff\xff\x7f"
        path = write(tmp_path, bytes(hurt))
        is_osr(bytes(hurt))
        try:
            rows, bad, dropped, blocks = rows_of(Osr(path))
        except FormatError:
            continue
        inspect_osr(path)
        numbered = [record.seq for record in bad if record.seq is not None]
        assert rows.num_rows + len(numbered) + sum(dropped.values()) == blocks[-1][0].after["seq"]
        read += rows.num_rows > 0
    return read


def test_damaged_replays_do_no_harm(tmp_path):
    assert damaged(tmp_path, range(300)) > 50


@pytest.mark.nightly
def test_damaged_replays_do_no_harm_at_length(tmp_path):
    damaged(tmp_path, range(1000, 11_000))
