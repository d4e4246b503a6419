"""What a game posts over real HTTP: a row for each change, nothing personal, and the same rows of the recording."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from typing import Any

from live_feeds import beside, follow, free_port
from penstock.pipeline.context import Context
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.game_states import GameStates, live_gsi
from penstock.sources.replay.recording import Recording

STEAM = "76561190000000001"


def state(round_number: int, health: int) -> bytes:
    document = {
        "provider": {"name": "Counter-Strike 2", "appid": 730, "timestamp": 1700000000},
        "auth": {"token": "secret"},
        "map": {"name": "de_dust2", "round": round_number},
        "player": {"steamid": STEAM, "name": "somebody", "state": {"health": health}},
    }
    return json.dumps(document, indent=1).encode()


def post_all(port: int, bodies: list[bytes]) -> list[int]:
    answers: list[int] = []
    pause = threading.Event()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for body in bodies:
        while True:
            try:
                connection.request("POST", "/", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                answers.append(answer.status)
                break
            except ConnectionRefusedError:
                connection.close()
                pause.wait(0.05)
    connection.close()
    return answers


def test_posts_become_rows_of_what_changed_and_their_recording_gives_them_again(tmp_path: Path) -> None:
    port, path = free_port(), str(tmp_path / "match.mcap")
    spec = live_gsi(f"http://127.0.0.1:{port}/", match_id="m", most=4, record=path)
    bodies = [state(1, 100), state(1, 100), b"[1, 2]", state(2, 40)]
    with beside(lambda: follow(spec)) as outcome:
        assert post_all(port, bodies) == [200] * 4
    rows, bad, dropped = outcome[0]
    changed = [(row["type"], row["value"]) for row in rows.to_pylist() if row["change"] == "set"]
    assert changed == [("map.round", 2.0), ("player.state.health", 40.0)]
    assert "secret" not in str(rows.to_pylist()) and "somebody" not in str(rows.to_pylist())
    assert STEAM not in str(rows.to_pylist())
    assert len(bad) == 1 and dropped == {"posts in which nothing changed": 1}
    again, bad_again, _ = follow(Recording(path))
    assert again.to_pylist() == rows.to_pylist() and len(bad_again) == 1


def test_a_run_that_goes_on_knows_the_state_it_left() -> None:
    codec = GameStates(match_id="m")
    whole = codec.open(Context("gsi"), "http://test", None)
    posts = [Arrival(10 + n, state(1 + n // 2, 100 - n)) for n in range(6)]
    first = whole.take(posts[:3], 0)
    position: Any = json.loads(json.dumps(whole.position()))
    rest = whole.take(posts[3:], first.records)
    again = codec.open(Context("gsi"), "http://test", position).take(posts[3:], first.records)
    made, same = whole.decode(rest.payload, 0), whole.decode(again.payload, 0)
    assert [b.to_pylist() for b in made.batches] == [b.to_pylist() for b in same.batches]
    assert made.batches[0]["seq"].to_pylist()[0] == first.records
