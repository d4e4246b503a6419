"""Live crypto feeds against a stand-in of the venue on loopback: recorded rows, faults noticed, books brought in step."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from live_feeds import beside, follow
from penstock.pipeline.errors import GraphError
from penstock.sources.live.crypto_messages import CryptoMessages, live_crypto
from penstock.sources.market._crypto_subscribe import stream_url, subscriptions
from penstock.sources.market.crypto import CryptoRaw
from penstock.sources.replay.recording import Recording
from penstock.sources.replay.serving import replay
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def depth(first: int, last: int, previous: int) -> str:
    """A change of a usdm book."""
    return json.dumps(
        {
            "e": "depthUpdate", "E": 1700000000000 + last, "T": 1700000000000 + last, "s": "BTCUSDT",
            "U": first, "u": last, "pu": previous, "b": [["100.5", "1.25"]], "a": [],
        },
        separators=(",", ":"),
    )  # fmt: skip


@contextlib.contextmanager
def venue(
    *scripts: list[str], snapshots: Callable[[int], dict[str, Any] | None]
) -> Iterator[tuple[str, str, list[str]]]:
    """A WebSocket server that plays one script to each connection, waiting for a snapshot to be given at ``"?"`` and closing
    at its end, and an HTTP server whose n-th answer is ``snapshots(n)``."""
    asked: list[str] = []
    answered = threading.Semaphore(0)
    connections: list[int] = []

    class Snapshots(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = snapshots(len(asked))
            body = json.dumps(answer).encode()
            self.send_response(200 if answer is not None else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if answer is not None:
                answered.release()

        def log_message(self, *_: Any) -> None:
            pass

    def handle(connection: Any) -> None:
        number = len(connections)
        connections.append(number)
        with contextlib.suppress(ConnectionClosed):
            for text in scripts[min(number, len(scripts) - 1)]:
                if text == "?":
                    answered.acquire(timeout=20)
                else:
                    connection.send(text)

    rest = ThreadingHTTPServer(("127.0.0.1", 0), Snapshots)
    stream = serve(handle, "127.0.0.1", 0)
    for server in (rest, stream):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        snapshot_url = f"http://127.0.0.1:{rest.server_address[1]}/depth?symbol={{symbol}}"
        yield f"ws://127.0.0.1:{stream.socket.getsockname()[1]}/stream", snapshot_url, asked
    finally:
        stream.shutdown()
        rest.shutdown()
        rest.server_close()


def snapshot(last: int) -> dict[str, Any]:
    return {
        "lastUpdateId": last,
        "E": 1700000000000,
        "T": 1700000000000,
        "bids": [["99.5", "2"]],
        "asks": [["101", "3"]],
    }


def test_a_book_begins_with_a_snapshot_that_is_asked_for_and_a_gap_asks_for_another() -> None:
    script = [depth(1, 5, 0), "?", depth(6, 9, 5), depth(20, 25, 19), "?", depth(26, 30, 25)]
    with venue(script, snapshots=lambda n: snapshot(5 if n == 1 else 25)) as (url, rest, asked):
        spec = live_crypto("binance-usdm", ["BTCUSDT"], table="l2", url=url, snapshots=rest, reconnect="0s")
        rows, bad, _ = follow(spec)
    assert len(asked) >= 2 and set(asked) == {"/depth?symbol=BTCUSDT"}
    gaps = [record for record in bad if record.error.startswith("gap in depth of BTCUSDT")]
    assert len(gaps) == 1
    assert json.loads(gaps[0].data.partition(b" ")[2])["U"] == 20  # seen in the very message behind it
    shots = [row["last_id"] for row in rows.to_pylist() if row["is_snapshot"]]
    assert shots[:2] == [5, 5] and shots[-2:] == [25, 25]
    changes = [row["last_id"] for row in rows.to_pylist() if not row["is_snapshot"]]
    assert changes == [5, 9, 25, 30]
    assert set(rows["symbol"].to_pylist()) == {"BTCUSDT"}


def test_a_lost_connection_puts_books_out_of_step_and_a_new_snapshot_mends_them() -> None:
    first, second = [depth(1, 5, 0), "?"], [depth(50, 55, 49), "?", depth(56, 60, 55)]
    with venue(first, second, snapshots=lambda n: snapshot(5 if n == 1 else 55)) as (url, rest, asked):
        spec = live_crypto("binance-usdm", ["BTCUSDT"], table="l2", url=url, snapshots=rest, most=5, reconnect="20s")
        rows, bad, _ = follow(spec)
    assert len(asked) >= 2
    assert "live.gap" in [record.operation for record in bad]
    assert {row["last_id"] for row in rows.to_pylist() if row["is_snapshot"]} <= {5, 55}


def test_a_snapshot_that_is_refused_is_asked_for_again() -> None:
    script = [depth(1, 5, 0), "?", depth(6, 9, 5)]
    with venue(script, snapshots=lambda n: None if n < 3 else snapshot(5)) as (url, rest, asked):
        spec = live_crypto("binance-usdm", ["BTCUSDT"], table="l2", url=url, snapshots=rest, reconnect="0s")
        rows, _, _ = follow(spec)
    assert len(asked) == 3
    assert sum(rows["is_snapshot"].to_pylist()) == 2


def test_the_recording_of_a_feed_gives_its_rows_again(tmp_path: Path) -> None:
    path = str(tmp_path / "feed.mcap")
    script = [depth(1, 5, 0), "?", depth(6, 9, 5), depth(20, 25, 19), "?", "not json"]
    with venue(script, snapshots=lambda n: snapshot(5 if n == 1 else 25)) as (url, rest, _):
        spec = live_crypto(
            "binance-usdm", ["BTCUSDT"], table="l2", url=url, snapshots=rest, reconnect="0s", record=path
        )
        live, live_bad, _ = follow(spec)
    again, bad, _ = follow(Recording(path))
    assert again.equals(live)
    assert [(record.operation, record.data) for record in bad] == [(r.operation, r.data) for r in live_bad]


@pytest.mark.parametrize("table", ["bbo", "l2", "trade"])
def test_a_replayed_recorder_file_gives_the_rows_of_the_file(recordings: Any, tmp_path: Path, table: str) -> None:
    folder = recordings("market/binance_ws_raw")
    source = next(
        path for path in sorted(folder.iterdir()) if "usdm" in path.name.lower() or "futures" in path.name.lower()
    )
    with gzip.open(source) as file:
        lines = [line for line, _ in zip(file, range(4000), strict=False)]
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"".join(lines))
    want, _, _ = follow(CryptoRaw(path, table=table))
    where: list[str] = []
    opened = threading.Event()

    def opened_at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(str(path), "ws://127.0.0.1:0", speed=0, opened=opened_at)):
        assert opened.wait(20.0)
        spec = live_crypto("binance-usdm", ["BTCUSDT"], table=table, url=where[0], snapshots="", reconnect="0s")
        got, _, _ = follow(spec)
    assert got.num_rows == want.num_rows > 0
    assert got.to_pylist() == want.to_pylist()


def test_every_venue_has_an_address_and_asks_for_its_streams() -> None:
    assert stream_url("binance-usdm", "l2", ["BTCUSDT", "ETHUSDT"]) == (
        "wss://fstream.binance.com/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms"
    )
    assert subscriptions("binance-spot", "bbo", ["BTCUSDT"], "/stream") == []
    assert json.loads(subscriptions("bybit", "trade", ["BTCUSDT"], "")[0])["args"] == ["publicTrade.BTCUSDT"]
    assert json.loads(subscriptions("okx", "l2", ["BTC-USDT"], "")[0])["args"][0]["instId"] == "BTC-USDT"
    assert json.loads(subscriptions("coinbase", "trade", ["BTC-USD"], "")[0])["product_ids"] == ["BTC-USD"]
    assert json.loads(subscriptions("kraken", "l2", ["BTC/USD"], "")[0])["params"]["channel"] == "book"
    with pytest.raises(GraphError, match="which symbols"):
        live_crypto("okx", [])
    with pytest.raises(GraphError, match="no stream"):
        stream_url("okx", "agg_trade", ["BTC-USDT"])
    with pytest.raises(GraphError, match="no venue"):
        CryptoMessages("mtgox")
