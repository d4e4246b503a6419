"""StarCraft II replays against the events that were derived from the same files."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.sources.games._sc2_events import ns_of
from penstock.sources.games.sc2 import Sc2Replay, inspect_sc2replay, is_sc2replay, open_sc2replay

FILES = {
    "3.0.0.38749_1": 22041,
    "5.0.0.80949_Ocrucius_vs_Rairden": 18233,
}


def rows_of(spec, position=None):
    reader = spec.open(Context("test"), None, position)
    blocks = list(reader.blocks())
    batches = [batch for block in blocks for batch in reader.decode(block).batches]
    reader.close()
    return pa.Table.from_batches(batches, spec.schema), blocks


@pytest.mark.parametrize("name", FILES)
def test_real_replays_have_the_events_and_fields_of_the_derived_ndjson(recordings, name):
    pytest.importorskip("sc2reader", reason="pip install sc2reader")
    rows, blocks = rows_of(Sc2Replay(recordings("games/sc2replay") / f"{name}.SC2Replay"))
    rows.validate(full=True)
    text = gzip.decompress((recordings("games/derived_sc2_events") / f"{name}.ndjson.gz").read_bytes())
    wanted = [json.loads(line) for line in text.splitlines()]
    assert rows.num_rows == len(wanted) == FILES[name]
    assert rows["seq"].to_pylist() == list(range(len(wanted)))
    assert rows["ts_event"].cast(pa.int64()).to_pylist() == [event.pop("ts_ns") for event in wanted]
    assert rows["type"].to_pylist() == [event.pop("event") for event in wanted]
    assert rows["player"].to_pylist() == [event.pop("pid", -1) for event in wanted]
    for axis in "xy":
        floats = pa.array([event.pop(axis, None) for event in wanted], pa.float32())
        assert rows[axis].combine_chunks().equals(floats)
    assert [json.loads(text) for text in rows["attrs"].to_pylist()] == wanted
    later, _ = rows_of(Sc2Replay(recordings("games/sc2replay") / f"{name}.SC2Replay"), blocks[1].after)
    assert later.to_pylist() == rows.slice(blocks[2].first_seq).to_pylist()


def test_inspect_counts_without_names(recordings):
    pytest.importorskip("sc2reader", reason="pip install sc2reader")
    path = recordings("games/sc2replay") / "3.0.0.38749_1.SC2Replay"
    found = inspect_sc2replay(path)
    assert found["messages"] == sum(found["types"].values()) == 22041
    assert (found["version"], found["speed"]) == ("3.0.3.38749", "Faster")
    assert is_sc2replay(path.read_bytes()[:65536])
    assert open_sc2replay(path) == Sc2Replay(path)


def test_a_resumed_game_is_read_without_its_tracker_events(recordings, monkeypatch):
    sc2reader = pytest.importorskip("sc2reader", reason="pip install sc2reader")
    path = recordings("games/sc2replay") / "3.0.0.38749_1.SC2Replay"
    load = sc2reader.load_replay

    def refused(file, **options):
        if options["load_level"] == 4 and options.get("do_tracker_events", True):
            raise sc2reader.exceptions.CorruptTrackerFileError(
                "Cannot run engine on resumed games with tracker events."
            )
        return load(file, **options)

    monkeypatch.setattr(sc2reader, "load_replay", refused)
    found = inspect_sc2replay(path)
    assert 0 < found["messages"] < 22041
    assert "resumed" in found["error"]
    assert not {"UnitBornEvent", "PlayerStatsEvent"} & set(found["types"])
    rows, _ = rows_of(Sc2Replay(path))
    assert rows.num_rows == found["messages"]


def test_frames_are_exact():
    assert [ns_of(frame, "Faster") for frame in (0, 1, 8, 224)] == [0, 44_642_857, 357_142_857, 10**10]
    assert ns_of(16, "Normal") == 10**9


def test_what_cannot_be_read_is_said_with_its_version(recordings, tmp_path):
    pytest.importorskip("sc2reader", reason="pip install sc2reader")
    data = (recordings("games/sc2replay") / "3.0.0.38749_1.SC2Replay").read_bytes()
    for hurt, what in (
        (b"", "empty"),
        (b"hello", "not a StarCraft"),
        (data[:50_000], "cannot read"),
        (b"MPQ\x1b" + bytes(99), "cannot read"),
    ):
        path = tmp_path / "x.SC2Replay"
        path.write_bytes(hurt)
        with pytest.raises(FormatError, match=what):
            rows_of(Sc2Replay(path))
    assert not is_sc2replay(b"MPQ\x1a" + bytes(100))
