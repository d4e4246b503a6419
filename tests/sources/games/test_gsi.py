"""Whole game states to events: what changed, once, in order, without people."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.schema import check_event_schema
from penstock.sources.games.gsi import GsiDiff

A, B = "76561198000000001", "76561198000000002"


def state(**changes):
    document = {
        "provider": {"name": "Counter-Strike: Global Offensive", "timestamp": 1700000000},
        "map": {"name": "de_dust2", "round": 3, "team_ct": {"score": 2, "name": "Blue"}},
        "player": {"steamid": A, "name": "SECRET", "activity": "playing", "state": {"health": 100, "helmet": True}},
        "allplayers": {
            A: {"name": "SECRET", "clan": "SECRET", "position": "1.5, -2, 3", "state": {"health": 100}},
            B: {"name": "SECRET", "position": "0, 0, 0", "state": {"health": 80}},
        },
        "bomb": {"player": B, "state": "carried"},
        "auth": {"token": "SECRETTOKEN"},
        "previously": {"player": {"state": {"health": 99}}},
        "added": {"player": {"state": True}},
    }
    for path, value in changes.items():
        node = document
        *parents, last = path.split("__")
        for key in parents:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return json.dumps(document).encode()


def rows(batch):
    return [] if batch is None else batch.to_pylist()


def test_the_first_post_is_the_full_state_flagged():
    batch, bad = GsiDiff().post(state(), 5)
    assert bad is None
    assert check_event_schema(batch.schema) is None
    found = rows(batch)
    assert {row["change"] for row in found} == {"initial"}
    assert [row["seq"] for row in found] == list(range(len(found)))
    assert {(row["ts_event"].value, row["ts_recv"].value) for row in found} == {(5, 5)}
    paths = [(row["type"], row["player"]) for row in found]
    assert paths == [
        ("provider.name", -1),
        ("provider.timestamp", -1),
        ("map.name", -1),
        ("map.round", -1),
        ("map.team_ct.score", -1),
        ("map.team_ct.name", -1),
        ("player.activity", 0),
        ("player.state.health", 0),
        ("player.state.helmet", 0),
        ("allplayers.*.position", 0),
        ("allplayers.*.state.health", 0),
        ("allplayers.*.position", 1),
        ("allplayers.*.state.health", 1),
        ("bomb.player", -1),
        ("bomb.state", -1),
    ]
    by_path = dict(zip(paths, found, strict=True))
    assert by_path["player.state.health", 0]["value"] == 100.0
    assert by_path["player.state.helmet", 0]["value"] == 1.0
    assert by_path["bomb.state", -1]["attrs"] == '"carried"'
    assert (by_path["bomb.player", -1]["value"], by_path["bomb.player", -1]["target"]) == (1.0, 1)
    position = by_path["allplayers.*.position", 0]
    assert (position["x"], position["y"], position["z"]) == (1.5, -2.0, 3.0)


def test_only_what_changed_comes_later():
    diff = GsiDiff()
    first, _ = diff.post(state(), 1)
    assert diff.post(state(auth={"token": "x"}, previously={}), 2) == (None, None)
    changed = {
        f"allplayers__{B}__state__health": 55,
        "bomb__state": "planted",
        "map__round": ...,
        "player__activity": None,
    }
    batch, bad = diff.post(state(**changed), 3)
    assert bad is None
    found = [(row["type"], row["player"], row["value"], row["attrs"], row["change"]) for row in rows(batch)]
    assert found == [
        ("player.activity", 0, None, "null", "set"),
        ("allplayers.*.state.health", 1, 55.0, "", "set"),
        ("bomb.state", -1, None, '"planted"', "set"),
        ("map.round", -1, None, "", "removed"),
    ]
    assert batch["seq"][0].as_py() == first.num_rows


def test_neither_secret_nor_people_leave_unless_asked():
    diff = GsiDiff()
    batch, _ = diff.post(state(), 1)
    text = str(rows(batch)) + str(batch.schema)
    assert "SECRET" not in text
    assert A not in text
    kept, _ = GsiDiff(keep_personal=True).post(state(), 1)
    text = str(rows(kept))
    assert "SECRETTOKEN" not in text
    assert A in text
    assert "'\"SECRET\"'" in text
    _, bad = diff.post(b'{"auth": {"token": "SECRETTOKEN"}, oops', 2)
    assert "SECRET" not in str(bad)


def test_dotas_players_are_by_their_number():
    body = json.dumps(
        {"map": {"matchid": "77"}, "hero": {"team2": {"player3": {"name": "npc_axe", "health": 5}}}}
    ).encode()
    batch, _ = GsiDiff().post(body, 1)
    found = [(row["match_id"], row["type"], row["player"], row["value"]) for row in rows(batch)]
    assert found[-1] == ("77", "hero.team2.player*.health", 3, 5.0)


def test_a_bad_post_is_a_record_and_leaves_the_state(monkeypatch):
    diff = GsiDiff(max_bytes=10_000)
    first, _ = diff.post(state(), 1)
    for body in (
        b"",
        b"[]",
        b'{"a": NaN}',
        b"\xff\xfe",
        b"x" * 10_001,
        b"[" * 9_000,
        b'{"a":' * 1500 + b"1" + b"}" * 1500,
    ):
        batch, bad = diff.post(body, 2)
        assert batch is None
        assert bad.data == b""
    assert bad.seq == first.num_rows + 6
    assert diff.post(state(), 3) == (None, None)


def test_a_saved_diff_goes_on_alike():
    posts = [state(), state(bomb__state="planted"), state(**{f"allplayers__{B}__state__health": 1})]
    whole = GsiDiff()
    wanted = [rows(whole.post(body, 1)[0]) for body in posts]
    for cut in range(len(posts)):
        first = GsiDiff()
        found = [rows(first.post(body, 1)[0]) for body in posts[:cut]]
        second = GsiDiff(state=json.loads(json.dumps(first.save())))
        assert found + [rows(second.post(body, 1)[0]) for body in posts[cut:]] == wanted


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
KEYS = st.sampled_from(["a", "b", "player", "player1", "name", A, "auth"]) | st.text(max_size=3)
STATES = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda s: st.lists(s, max_size=3) | st.dictionaries(KEYS, s, max_size=3))
)


@given(st.lists(STATES, min_size=1, max_size=4))
@settings(max_examples=25)
def test_any_states_are_diffed_to_what_a_replay_of_the_rows_gives_back(states):
    diff, kept = GsiDiff(), {}
    for document in states:
        batch, bad = diff.post(json.dumps(document).encode(), 1)
        assert bad is None
        for row in rows(batch):
            key = row["type"], row["player"]
            if row["change"] == "removed":
                del kept[key]
            else:
                kept[key] = row["value"], row["attrs"], row["target"]
        fresh, _ = GsiDiff(state={"players": diff.save()["players"]}).post(json.dumps(document).encode(), 1)
        assert kept == {
            (row["type"], row["player"]): (row["value"], row["attrs"], row["target"]) for row in rows(fresh)
        }


def test_half_a_surrogate_pair_does_no_harm():
    batch, bad = GsiDiff().post(b'{"a\\ud800": "\\udc00", "map": {"matchid": "\\ud800"}}', 1)
    assert bad is None
    batch.validate(full=True)
    assert rows(batch)[0]["attrs"] == '"\\udc00"'


@given(st.binary(max_size=100))
@settings(max_examples=100)
def test_any_bytes_are_rows_or_a_bad_record(body):
    batch, bad = GsiDiff().post(body, 1)
    assert batch is None or bad is None
