"""The made-up game: the promised shape, the promised size, the same bytes again."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from penstock.demos.game_recording import write_game
from penstock.pipeline.context import Context
from penstock.sources.storage.unpack import head_of
from penstock.sources.text.ndjson import game_events, inspect_ndjson, is_ndjson

REAL_KEYS = {
    "CameraEvent": {"pid", "x", "y"},
    "SelectionEvent": {"pid"},
    "CommandManagerStateEvent": {"pid"},
    "GetControlGroupEvent": {"pid", "control_group"},
    "TargetPointCommandEvent": {"pid", "x", "y", "ability_name", "ability_id", "flags"},
    "UpdateTargetPointCommandEvent": {"pid", "x", "y", "ability_name", "ability_id", "flags"},
    "BasicCommandEvent": {"pid", "ability_name", "ability_id", "flags"},
    "TargetUnitCommandEvent": {"pid", "x", "y", "ability_name", "ability_id", "target_unit_id", "flags"},
    "UnitBornEvent": {"control_pid", "upkeep_pid", "unit_id", "unit_type_name", "x", "y"},
    "UnitDiedEvent": {"killer_pid", "unit_id", "x", "y"},
    "PlayerSetupEvent": {"pid"},
}


def events_of(path: Path) -> list[dict[str, object]]:
    text = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text).splitlines()]


def test_lines_have_the_keys_of_real_recordings_in_time_order(tmp_path: Path) -> None:
    found = write_game(tmp_path / "g.ndjson", events=8_000, players=3, seed=4)
    events = events_of(tmp_path / "g.ndjson")
    assert len(events) == found["events"] == 8_000
    assert found["counts"] == Counter(event["event"] for event in events)
    assert found["bytes"] == (tmp_path / "g.ndjson").stat().st_size
    assert set(found["counts"]) == {*REAL_KEYS, "PlayerStatsEvent"}
    frames = [int(str(event["frame"])) for event in events]
    assert frames == sorted(frames)
    assert frames[-1] == found["frames"]
    for event, frame in zip(events, frames, strict=True):
        assert event["ts_ns"] == 1_700_000_000_000_000_000 + frame * 10_000_000_000 // 224
        if event["event"] != "PlayerStatsEvent":
            assert set(event) == {"ts_ns", "frame", "event"} | REAL_KEYS[str(event["event"])]
        assert 0 <= float(str(event.get("x", 0))) < 192
        assert event.get("pid", 1) in (1, 2, 3)


def test_players_take_turns_and_do_not_all_do_the_same(tmp_path: Path) -> None:
    write_game(tmp_path / "g.ndjson", events=6_000, players=2)
    events = [event for event in events_of(tmp_path / "g.ndjson") if "pid" in event]
    shares = Counter(event["pid"] for event in events)
    assert min(shares.values()) > 2_000
    follows = Counter(
        (one["event"], other["event"])
        for player in shares
        for one, other in zip(*(lambda own: (own, own[1:]))([e for e in events if e["pid"] == player]), strict=False)
    )
    # what comes next depends on what came before: an update follows a point command, never a selection
    assert follows["TargetPointCommandEvent", "UpdateTargetPointCommandEvent"] > 20
    assert follows["SelectionEvent", "UpdateTargetPointCommandEvent"] == 0


@pytest.mark.parametrize("gz", [False, True])
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, gz: bool) -> None:
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        write_game(tmp_path / name, events=3_000, seed=seed, gz=gz)
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    assert is_ndjson(head_of(tmp_path / "one")[0])
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "three"}


def test_the_game_reads_as_game_events(tmp_path: Path) -> None:
    path = tmp_path / "g.ndjson.gz"
    found = write_game(path, events=2_000, gz=True)
    source = game_events(path)
    reader = source.open(Context("read"))
    decoded = [reader.decode(block) for block in reader.blocks()]
    reader.close()
    table = pa.Table.from_batches([batch for one in decoded for batch in one.batches], source.schema)
    assert not [bad for one in decoded for bad in one.bad]
    assert table.num_rows == 2_000
    assert Counter(table["type"].to_pylist()) == found["counts"]
    assert inspect_ndjson(path)["types"] == found["counts"]


@pytest.mark.parametrize("events", [4, 5, 8_196, 8_197])
def test_exactly_as_many_events_as_asked_for(tmp_path: Path, events: int) -> None:
    write_game(tmp_path / "g", events=events)
    assert len(events_of(tmp_path / "g")) == events


def test_impossible_games_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside 1 to 1000"):
        write_game(tmp_path / "g", players=0)
    with pytest.raises(ValueError, match="too few"):
        write_game(tmp_path / "g", events=3, players=4)
    assert not list(tmp_path.iterdir())
