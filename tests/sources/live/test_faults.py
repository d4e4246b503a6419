"""Every live source while its sender drops, doubles, reorders, delays and disconnects, over real sockets.

A loss is told before the second message behind it is sent (the sender waits for it), or the source's documentation says
that it cannot be seen. No row comes twice where the wire has what tells.
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from crypto_reference import change
from itch_reference import message as itch
from live_feeds import (
    BREAK,
    FAULTS,
    PAUSE,
    Watched,
    faulty,
    http_sender,
    lines_of,
    tcp_sender,
    udp_sender,
    ws_sender,
    zmq_sender,
)
from penstock.pipeline.source import SourceSpec
from penstock.sources.brokers.zeromq import Zmq
from penstock.sources.driving.adc import Adc
from penstock.sources.live.adc_packets import AdcPackets
from penstock.sources.live.can_lines import CanLines
from penstock.sources.live.crypto_messages import CryptoMessages
from penstock.sources.live.feed import Live
from penstock.sources.live.game_states import GameStates
from penstock.sources.live.itch_packets import MoldPackets
from penstock.sources.live.json_messages import JsonMessages
from penstock.sources.live.radar_packets import RadarPackets
from penstock.sources.live.raw_messages import RawMessages
from penstock.sources.live.session import Codec
from penstock.sources.live.slippi_events import SlippiEvents
from penstock.sources.live.stamp import pack
from penstock.sources.live.topic_messages import TopicMessages
from penstock.sources.text.ndjson import Ndjson
from radar_files import NEAR, detection_packet, frames, scan_header
from slippi_naive import Game

N, AT = 8, 3
ALL = list(range(N))
WITHOUT = [n for n in ALL if n != AT]
TWICE = [0, 1, 2, 3, 3, 4, 5, 6, 7]
SWAPPED = [0, 1, 2, 4, 3, 5, 6, 7]
LOST = "the connection was lost"
SILENT = "cannot be seen"


@dataclass(frozen=True)
class Cell:
    """What must come out: the rows by number, the beginnings of what is told, and what is counted."""

    rows: list[int]
    told: tuple[str, ...] = ()
    counted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Feed:
    """A source, its messages, how they are sent, the numbers of its rows, and what each fault does."""

    codec: Codec
    sender: Any
    messages: list[Any]
    numbers: Callable[[Any], list[int]]
    cells: dict[str, Cell]
    at: int = AT
    most: int | None = 0
    source: Callable[[str, Codec, int | None], SourceSpec] | None = None


def cells(drop: Any, duplicate: Any, reorder: Any, disconnect: Any) -> dict[str, Cell]:
    """Of every fault; after a delay all is as if there had been none."""
    made = {"drop": drop, "duplicate": duplicate, "reorder": reorder, "delay": Cell(ALL), "disconnect": disconnect}
    return {fault: cell if isinstance(cell, Cell) else Cell(*cell) for fault, cell in made.items()}


#: A feed without numbers, over a connection.
UNCOUNTED = cells(Cell(WITHOUT, (SILENT,)), Cell(TWICE), Cell(SWAPPED), Cell(WITHOUT, (LOST,)))
#: Datagrams without numbers.
UNCOUNTED_DATAGRAMS = {**UNCOUNTED, "disconnect": Cell(WITHOUT, (SILENT,))}
#: Datagrams that a replay has numbered.
NEVER = f"{AT + 1} to {AT + 1} of the sender never came"
NUMBERED = cells(
    Cell(WITHOUT, (f"datagrams {NEVER}",)),
    Cell(ALL, (), {"datagrams that came twice": 1}),
    Cell(SWAPPED, (f"datagrams {NEVER}",), {"datagrams that came behind later ones": 1}),
    Cell(WITHOUT, (f"datagrams {NEVER}",)),
)


def column(name: str) -> Callable[[Any], list[int]]:
    return lambda table: [int(value) for value in table[name].to_pylist()]


def once(values: Callable[[Any], list[int]], first: int = 0) -> Callable[[Any], list[int]]:
    """Numbers from `first` on, of which several rows in a row may have the same."""
    return lambda table: [value - first for value in dict.fromkeys(values(table))]


def numbered(messages: list[bytes]) -> list[bytes]:
    return [pack(data, 1000 + n, 0, 0, n + 1) for n, data in enumerate(messages)]


def stamped(messages: list[bytes]) -> list[bytes]:
    return [pack(data, 1000 + n, 0) for n, data in enumerate(messages)]


def text(*messages: Any) -> list[bytes]:
    return [json.dumps(message, separators=(",", ":")).encode() for message in messages]


FEEDS: dict[str, Feed] = {}

# MoldUDP64: the protocol counts messages.
MOLD = [b"SESSION001" + struct.pack(">QHH", n + 1, 1, len(m)) + m for n in ALL for m in [itch("D", 1, 1000 + n, n)]]
MOLD.append(b"SESSION001" + struct.pack(">QH", N + 1, 0xFFFF))
MISSING = f"gap: message {AT + 1} of"
FEEDS["itch, one line"] = Feed(
    MoldPackets(date="2019-01-30", wait="20ms"),
    udp_sender,
    MOLD,
    column("order_id"),
    cells(Cell(WITHOUT, (MISSING,)), Cell(ALL), Cell(ALL), Cell(WITHOUT, (MISSING,))),
    most=None,
)
FEEDS["itch, numbered by a replay"] = Feed(
    MoldPackets(date="2019-01-30", wait="20ms"),
    udp_sender,
    numbered(MOLD),
    column("order_id"),
    FEEDS["itch, one line"].cells,
    most=None,
)


def crypto(venue: str, messages: list[bytes], numbers: Any, *, table: str = "l2", gap: str, **more: Any) -> Feed:
    """A venue whose books, or trades, have numbers."""
    return Feed(
        CryptoMessages(venue, table, snapshots=""),
        ws_sender,
        messages,
        numbers,
        {
            **cells(
                Cell(WITHOUT, (gap,)),
                Cell(ALL, (), {"messages that came twice": 1}),
                Cell(SWAPPED, (gap,)),
                Cell(WITHOUT, (LOST,)),
            ),
            **more,
        },
    )


def kraken() -> list[bytes]:
    """A book of which each message adds a bid, with its check sums."""
    made, bids = [], [f"{price}.0" for price in range(99, 89, -1)]
    for n in ALL:
        bids.insert(0, f"{100 + n}.0")
        fresh = bids[:10] if n == 0 else bids[:1]
        digits = "110010" + "".join(bid.replace(".", "") + "10" for bid in bids[:10])
        side = ",".join(f'{{"price":{bid},"qty":1.0}}' for bid in fresh)
        ask = '[{"price":110.0,"qty":1.0}]' if n == 0 else "[]"
        kind = "snapshot" if n == 0 else "update"
        made.append(
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{side}],"asks":{ask},'
            f'"checksum":{zlib.crc32(digits.encode())}}}]}}'.encode()
        )
    return made


def new_bids(table: Any) -> list[int]:
    """The bids that `kraken` added."""
    sides = zip(table["price"].to_pylist(), table["side"].to_pylist(), strict=True)
    return [price // 10**9 - 100 for price, side in sides if side > 0 and price >= 100 * 10**9]


DEPTH = "gap in depth of "
TRADE = f"trades {AT} to {AT} of "
USDM = [
    {"lastUpdateId": 0, "bids": [["1", "1"]], "asks": [], "symbol": "BTCUSDT"},
    *(change(n, n, n - 1) for n in ALL[1:]),
]
SPOT = [USDM[0], *(change(n, n) for n in ALL[1:])]
ONCE = once(column("last_id"))
FEEDS["binance-usdm"] = crypto("binance-usdm", text(*USDM), ONCE, gap=DEPTH)
FEEDS["binance-spot"] = crypto("binance-spot", text(*SPOT), ONCE, gap=DEPTH)
FEEDS["bybit"] = crypto(
    "bybit",
    text(
        *(
            {
                "topic": "orderbook.50.BTCUSDT", "type": "delta" if n else "snapshot", "ts": 1672304484978 + n,
                "data": {"s": "BTCUSDT", "b": [["1", "1"]], "a": [], "u": n + 5, "seq": n}, "cts": 1672304484976,
            }
            for n in ALL
        )
    ),
    once(column("last_id"), 5),
    gap=DEPTH,
)  # fmt: skip
FEEDS["okx"] = crypto(
    "okx",
    text(
        *(
            {
                "arg": {"channel": "books", "instId": "BTC-USDT"}, "action": "update" if n else "snapshot",
                "data": [{"asks": [], "bids": [["1", "1", "0", "1"]], "ts": "1597026383085", "checksum": 0,
                          "prevSeqId": n + 4 if n else -1, "seqId": n + 5}],
            }
            for n in ALL
        )
    ),
    once(column("last_id"), 5),
    gap=DEPTH,
)  # fmt: skip
FEEDS["kraken"] = crypto(
    "kraken",
    kraken(),
    new_bids,
    gap=DEPTH,
)
FEEDS["binance trades"] = crypto(
    "binance-usdm",
    text(
        *({"e": "trade", "E": 1 + n, "T": 1 + n, "s": "BTCUSDT", "t": n, "p": "1", "q": "1", "m": False} for n in ALL)
    ),
    column("trade_id"),
    table="trade",
    gap=TRADE,
    disconnect=Cell(WITHOUT, (LOST, TRADE)),
    reorder=Cell(SWAPPED, (TRADE,), {"trades that came behind later ones": 1}),
)
FEEDS["coinbase trades"] = crypto(
    "coinbase",
    text(
        *(
            {"type": "match", "trade_id": n, "sequence": 50 + n, "time": "2014-11-07T08:19:27.028459Z",
             "product_id": "BTC-USD", "size": "5.2", "price": "400.23", "side": "sell"}
            for n in ALL
        )
    ),
    column("trade_id"),
    table="trade",
    gap=TRADE,
    disconnect=Cell(WITHOUT, (LOST, TRADE)),
)  # fmt: skip
FEEDS["binance best prices"] = crypto(
    "binance-usdm",
    text(
        *(
            {"e": "bookTicker", "u": 7 * n, "s": "X", "b": "1", "B": "1", "a": "2", "A": "1", "T": 1, "E": 1}
            for n in ALL
        )
    ),
    lambda table: [number // 7 for number in table["update_id"].to_pylist()],
    table="bbo",
    gap=SILENT,
    reorder=Cell(SWAPPED),
)

# Telemetry without numbers.
JSON = JsonMessages(Ndjson("feed", columns={"n": "n:int64"}))
LINES = lines_of(N)
FEEDS["json over tcp"] = Feed(JSON, tcp_sender, [line + b"\n" for line in LINES], column("n"), UNCOUNTED)
FEEDS["json over ws"] = Feed(JSON, ws_sender, LINES, column("n"), UNCOUNTED)
FEEDS["json over http"] = Feed(JSON, http_sender, LINES, column("n"), UNCOUNTED)
FEEDS["json over udp"] = Feed(JSON, udp_sender, LINES, column("n"), UNCOUNTED_DATAGRAMS)
FEEDS["json, numbered by a replay"] = Feed(JSON, udp_sender, numbered(LINES), column("n"), NUMBERED)
RAW = [b"%d" % n for n in ALL]
FEEDS["raw over tcp"] = Feed(RawMessages(), tcp_sender, stamped(RAW), column("data"), UNCOUNTED)
FEEDS["raw, numbered by a replay"] = Feed(RawMessages(), udp_sender, numbered(RAW), column("data"), NUMBERED)
CAN = [b"(1.0) can0 123#0%d\n" % n for n in ALL]
FEEDS["candump over tcp"] = Feed(
    CanLines(), tcp_sender, CAN, lambda table: [row[0] for row in table["data"].to_pylist()], UNCOUNTED
)
TOPIC = TopicMessages("/n", 0, "cdr", "std_msgs/msg/UInt32", "ros2msg", "uint32 data")
CDR = [b"\0\1\0\0" + struct.pack("<I", n) for n in ALL]
FEEDS["topics over tcp"] = Feed(TOPIC, tcp_sender, stamped(CDR), column("data"), UNCOUNTED)
FEEDS["topics, numbered by a replay"] = Feed(TOPIC, udp_sender, numbered(CDR), column("data"), NUMBERED)


# Games.
def state(n: int) -> dict[str, Any]:
    before = {"previously": {"map": {"round": n - 1}}} if n else {}
    return {"provider": {"timestamp": 1_700_000_000 + n}, "map": {"round": n}, **before}


def rounds(table: Any) -> list[int]:
    return [int(row["value"]) for row in table.to_pylist() if row["type"] == "map.round"]


MISSED = "posts are missing: the game says that map.round was another value"
FEEDS["game states"] = Feed(
    GameStates(),
    http_sender,
    text(*map(state, ALL)),
    rounds,
    cells(
        Cell(WITHOUT, (MISSED,)),
        Cell(ALL, (), {"posts in which nothing changed": 1}),
        Cell(WITHOUT, (MISSED,), {"posts older than the one before": 1}),
        Cell(WITHOUT, (LOST, MISSED)),
    ),
)
GAME = Game((3, 9))
EVENTS = [GAME.frame(n - 123, final=n - 130) for n in ALL]
EVENTS[0] = GAME.head + EVENTS[0]
EVENTS[-1] += GAME.end()
FRAME = f"frame {AT - 123} of the game had not come"
SLIPPI = cells(
    Cell(WITHOUT, (FRAME,), {"missing frames": 1}),
    Cell(ALL, (), {"superseded by rollback": 2}),
    Cell(ALL, (FRAME,), {"frames that came after they were told missing": 1}),
    Cell(WITHOUT, (LOST, FRAME), {"missing frames": 1}),
)
FEEDS["slippi over ws"] = Feed(SlippiEvents(), ws_sender, EVENTS, once(column("frame"), -123), SLIPPI)
FEEDS["slippi over tcp"] = Feed(SlippiEvents(), tcp_sender, stamped(EVENTS), once(column("frame"), -123), SLIPPI)


# Radars.
def counted(n: int, counter: int) -> bytes:
    packet = bytearray(detection_packet([], seconds=n))
    packet[28:32] = struct.pack(">I", counter)
    return bytes(packet)


SECONDS: Callable[[Any], list[int]] = lambda table: [time.value // 10**9 for time in table["ts_event"].to_pylist()]  # noqa: E731
JUMPED = f"packet {AT + 1} of detections never came"
FEEDS["ars548"] = Feed(
    RadarPackets(),
    udp_sender,
    [counted(n, n + 1) for n in ALL],
    SECONDS,
    cells(
        Cell(WITHOUT, (JUMPED,)),
        Cell(ALL, (), {"packets that came twice": 1}),
        Cell(SWAPPED, (JUMPED,), {"packets that came after they were told missing": 1}),
        Cell(WITHOUT, (JUMPED,)),
    ),
)
BLIND = {"packets without a counter: a lost one cannot be seen": N - 1}
FEEDS["ars548 without a counter"] = Feed(
    RadarPackets(),
    udp_sender,
    [counted(n, 0) for n in ALL],
    SECONDS,
    cells(
        Cell(WITHOUT, (SILENT,), BLIND),
        Cell(ALL, (), {"packets that came twice": 1}),
        Cell(SWAPPED, (), {"packets that came behind later ones": 1}),
        Cell(WITHOUT, (SILENT,), BLIND),
    ),
)
NEARS = [packet for n in ALL[:3] for packet in frames(NEAR, scan_header(1, counter=n), [bytes([n] * 6)], counter=n)]
FEEDS["srr520"] = Feed(
    RadarPackets("srr520", "detections"),
    udp_sender,
    NEARS,
    column("sequence_counter"),
    {
        "drop": Cell([0, 2], ("a list of near: element", "a list of near: element")),
        "duplicate": Cell([0, 1, 2], (), {"packets that came twice": 1}),
        "reorder": Cell([0, 2], ("a list of near: element", "a list of near: element")),
        "delay": Cell([0, 1, 2]),
        "disconnect": Cell([0, 2], ("a list of near: element", "a list of near: element")),
    },
    at=60,
)
FEEDS["dca1000"] = Feed(
    AdcPackets(Adc("feed", chirps=1, samples=64, rx=4, frame_period="50ms", start=0), reorder=4, wait="20ms"),
    udp_sender,
    [struct.pack("<I", n + 1) + (n * 512).to_bytes(6, "little") + bytes([n]) * 512 for n in range(2 * N)],
    column("frame"),
    {
        "drop": Cell([0, 1, 2, 3, 4, 5, 6, 7], ("512 of 1024 bytes of frame 3 never came and are zeros",)),
        "duplicate": Cell(ALL, (), {"datagrams that came twice": 1}),
        "reorder": Cell(ALL, (), {"datagrams that came behind later ones": 1}),
        "delay": Cell(ALL),
        "disconnect": Cell(ALL, ("512 of 1024 bytes of frame 3 never came and are zeros",)),
    },
    at=6,
)

# Brokers: ZeroMQ, whose messages may have a frame with a number. Kafka and Redis keep what they have; see their own tests.
FEEDS["zeromq"] = Feed(
    RawMessages(),
    zmq_sender,
    [[b"n", n.to_bytes(8, "little"), b"%d" % n] for n in ALL],
    column("data"),
    cells(
        Cell(WITHOUT, (f"messages {AT} to {AT} of topic 'n' never came",)),
        Cell(ALL, (), {"messages that came twice": 1}),
        Cell(
            SWAPPED,
            (f"messages {AT} to {AT} of topic 'n' never came",),
            {"messages that came after they were told missing": 1},
        ),
        Cell(WITHOUT, (LOST, f"messages {AT} to {AT} of topic 'n' never came")),
    ),
    source=lambda url, codec, most: Zmq(
        url, codec, frames=("topic", "sequence", "payload"), most=most, reconnect="10s"
    ),
)


def live(url: str, codec: Codec, most: int | None) -> Live:
    return Live(url, codec, most=most, reconnect="10s")


class Follower:
    """What a sender waits for, once there is a feed."""

    def __init__(self) -> None:
        self._there = threading.Event()

    def follow(self, spec: SourceSpec) -> Watched:
        self._watched = Watched(spec)
        self._there.set()
        return self._watched

    def wait(self, step: str) -> None:
        assert self._there.wait(90)
        self._watched.wait(step)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", FEEDS)
def test_no_fault_is_silent_and_no_row_comes_twice(name: str, fault: str) -> None:
    feed, cell = FEEDS[name], FEEDS[name].cells[fault]
    if feed.sender is zmq_sender:
        pytest.importorskip("zmq")
    silent = SILENT in cell.told
    steps = faulty(feed.messages, feed.at, fault, told=bool(cell.told) and not silent)
    most = None
    if feed.most is not None:
        by_line = () if feed.codec.name == "dca1000" else ("datagrams that came twice",)
        by_line += ("messages that came twice",) if feed.sender is zmq_sender else ()
        taken_once = sum(cell.counted.get(reason, 0) for reason in by_line)
        most = sum(not isinstance(step, str) for step in steps) - taken_once
    follower = Follower()
    with feed.sender(steps, follower.wait) as url:
        watched = follower.follow((feed.source or live)(url, feed.codec, most))
        table = watched.finish()
    assert feed.numbers(table) == cell.rows
    told = sorted(record.error for record in watched.bad)
    if silent:
        assert SILENT in " ".join(str(type(feed.codec).__doc__).split()) and told == []
    else:
        assert len(told) == len(cell.told) and all(map(str.startswith, told, sorted(cell.told))), told
    assert {reason: watched.counted.get(reason) for reason in cell.counted} == cell.counted


@pytest.mark.parametrize("fault", FAULTS)
def test_what_one_line_of_itch_loses_the_other_one_brings(fault: str) -> None:
    steps: list[Any] = []
    other = iter(MOLD)
    for step in faulty(MOLD, AT, fault, told=False):
        steps += [step] if isinstance(step, str) else [(0, step)]
        if step != PAUSE:
            steps += [(1, packet) for packet in [next(other, None)] if packet is not None]
    steps += [(1, packet) for packet in other]
    follower = Follower()
    with udp_sender(steps, follower.wait, lines=2) as urls:
        watched = follower.follow(Live(urls, MoldPackets(date="2019-01-30", wait="10s")))
        table = watched.finish()
    assert table["order_id"].to_pylist() == ALL and table["flags"].to_pylist() == [0] * N
    assert watched.bad == []


@pytest.mark.parametrize("sender", [tcp_sender, ws_sender])
def test_a_connection_that_breaks_and_is_not_made_again_is_told_at_the_end(sender: Any) -> None:
    whole = stamped(RAW)
    steps = [*whole[:3], whole[3][:-1]] if sender is tcp_sender else [*whole[:3], PAUSE, BREAK]
    follower = Follower()
    with sender(steps, follower.wait) as url:
        watched = follower.follow(Live(url, RawMessages(), reconnect="0s"))
        table = watched.finish()
    assert [int(data) for data in table["data"].to_pylist()] == [0, 1, 2]
    assert [record.operation for record in watched.bad] == ["live.gap"]
    assert "not made again" in watched.bad[0].error
