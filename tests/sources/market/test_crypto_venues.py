"""Messages of Bybit, OKX, Coinbase and Kraken, as their documentation shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from crypto_reference import Read, lines, read
from penstock.sources.market.crypto import CryptoRaw, inspect_crypto_raw, is_crypto_raw, open_crypto_raw

RECV = 1723161255030314667
MS = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tape"


def bybit_book(kind: str, number: int, **more: Any) -> dict[str, Any]:
    data = {
        "s": "BTCUSDT",
        "b": [["16493.50", "0.006"]],
        "a": [["16611.00", "0.029"], ["16612.00", "0"]],
        "u": number,
        "seq": 7,
    }
    return {
        "topic": "orderbook.50.BTCUSDT",
        "type": kind,
        "ts": 1672304484978,
        "data": data,
        "cts": 1672304484976,
        **more,
    }


BYBIT_TRADE = {
    "topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1672304486868,
    "data": [
        {"T": 1672304486865, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "16578.50", "L": "PlusTick",
         "i": "20f43950-d8dd-5b31-9112-a178eb6023af", "BT": False},
        {"T": 1672304486866, "s": "BTCUSDT", "S": "Sell", "v": "0.002", "p": "16578.00", "i": "2290000000123", "BT": False},
    ],
}  # fmt: skip
BYBIT_TICKER = {
    "topic": "tickers.BTCUSDT", "type": "snapshot", "cs": 24987956059, "ts": 1673272861686,
    "data": {"symbol": "BTCUSDT", "bid1Price": "17215.50", "bid1Size": "84.489", "ask1Price": "17216.00",
             "ask1Size": "83.020"},
}  # fmt: skip


def okx_book(action: str, prev: int, number: int) -> dict[str, Any]:
    level = {
        "asks": [["8476.98", "415", "0", "13"]],
        "bids": [["8476.97", "256", "0", "12"], ["8475.55", "0", "0", "0"]],
    }
    numbers = {"ts": "1597026383085", "checksum": 0, "prevSeqId": prev, "seqId": number}
    return {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [level | numbers]}


OKX_TRADE = {
    "arg": {"channel": "trades", "instId": "BTC-USDT"},
    "data": [{"instId": "BTC-USDT", "tradeId": "130639474", "px": "42219.9", "sz": "0.12060306", "side": "buy",
              "ts": "1630048897897", "count": "3"}],
}  # fmt: skip
OKX_BEST = {
    "arg": {"channel": "bbo-tbt", "instId": "BCH-USDT-SWAP"},
    "data": [{"asks": [["111.06", "55154", "0", "2"]], "bids": [["111.05", "57745", "0", "2"]], "ts": "1670324386802",
              "seqId": 363996337}],
}  # fmt: skip
COINBASE_MATCH = {
    "type": "match", "trade_id": 10, "sequence": 50, "maker_order_id": "ac928c66", "taker_order_id": "132fb6ae",
    "time": "2014-11-07T08:19:27.028459Z", "product_id": "BTC-USD", "size": "5.23512", "price": "400.23", "side": "sell",
}  # fmt: skip
COINBASE_SNAPSHOT = {
    "type": "snapshot", "product_id": "BTC-USD", "bids": [["10101.10", "0.45054140"]], "asks": [["10102.55", "0.57753524"]],
}  # fmt: skip
COINBASE_UPDATE = {
    "type": "l2update", "product_id": "BTC-USD", "time": "2019-08-14T20:42:27.265Z",
    "changes": [["buy", "10101.80000000", "0.162567"], ["sell", "10102.00", "0.00"]],
}  # fmt: skip
COINBASE_TICKER = {
    "type": "ticker", "sequence": 37475248783, "product_id": "ETH-USD", "price": "1285.22", "best_bid": "1285.04",
    "best_bid_size": "0.46688654", "best_ask": "1285.27", "best_ask_size": "1.56637040", "side": "buy",
    "time": "2022-10-19T23:28:22.061769Z", "trade_id": 370843401, "last_size": "11.4396987",
}  # fmt: skip
KRAKEN_TRADE = (
    '{"channel":"trade","type":"update","data":[{"symbol":"MATIC/USD","side":"sell","price":0.5117,"qty":40.0,'
    '"ord_type":"market","trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"},{"symbol":"BTC/USD","side":"buy",'
    '"price":45285.20,"qty":1e-05,"ord_type":"limit","trade_id":7,"timestamp":"2023-09-25T07:49:37.7Z"}]}'
)
KRAKEN_BOOK = (
    '{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5657,"qty":1098.3947558}],'
    '"asks":[{"price":0.5668,"qty":0.0}],"checksum":2114181697,"timestamp":"2023-10-06T17:35:55.440295Z"}]}'
)
KRAKEN_SNAPSHOT = (
    '{"channel":"book","type":"snapshot","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5666,"qty":4831.75496356}],'
    '"asks":[{"price":0.5668,"qty":4410.79769741}],"checksum":2439117997}]}'
)
KRAKEN_TICKER = (
    '{"channel":"ticker","type":"snapshot","data":[{"symbol":"ALGO/USD","bid":0.10025,"bid_qty":740.0,"ask":0.10036,'
    '"ask_qty":1361.44813783,"last":0.10035,"volume":997038.98383185,"low":0.09979,"high":0.10285,"change":-0.00017}]}'
)


def test_bybit(path: Path) -> None:
    data = lines(
        {"success": True, "op": "subscribe"},
        BYBIT_TRADE,
        bybit_book("snapshot", 5),
        bybit_book("delta", 6),
        BYBIT_TICKER,
    )
    assert [row[:1] + row[2:] for row in read(path, data, table="trade").rows] == [
        (1672304486865 * MS, 1, "BTCUSDT", 16578_500_000_000, 0.001, 1, 0x20F43950D8DD5B31),
        (1672304486866 * MS, 1, "BTCUSDT", 16578_000_000_000, 0.002, -1, 2290000000123),
    ]
    found = read(path, table="l2")
    event = 1672304484976 * MS
    assert found.rows[:3] == [
        (event, RECV + 2 * MS, 2, "BTCUSDT", 1, 16493_500_000_000, 0.006, 5, 5, 0, True, False),
        (event, RECV + 2 * MS, 2, "BTCUSDT", -1, 16611_000_000_000, 0.029, 5, 5, 0, True, False),
        (event, RECV + 2 * MS, 2, "BTCUSDT", -1, 16612_000_000_000, 0.0, 5, 5, 0, True, True),
    ]
    assert [row[10] for row in found.rows] == [True] * 3 + [False] * 3 and found.bad == []
    assert found.dropped == {f"not in market.l2: {kind}": 1 for kind in ("response", "publicTrade", "tickers")}
    best = read(path, table="bbo").rows
    assert best == [
        (1673272861686 * MS, RECV + 4 * MS, 4, "BTCUSDT", 17215_500_000_000, 84.489, 17216_000_000_000, 83.02, 0)
    ]


def test_bybit_gaps_restarts_and_depths_of_their_own(path: Path) -> None:
    other = {**bybit_book("snapshot", 900), "topic": "orderbook.200.BTCUSDT"}
    found = read(
        path, lines(bybit_book("snapshot", 5), other, bybit_book("delta", 6), bybit_book("delta", 9)), table="l2"
    )
    assert [bad.error for bad in found.bad] == [
        "gap in depth of BTCUSDT: 2 updates, 7 to 8, are missing; book is out of step until the next snapshot"
    ]
    assert (
        read(path, lines(bybit_book("snapshot", 5), bybit_book("delta", 1), bybit_book("delta", 2)), table="l2").bad
        == []
    )


def test_bybit_tickers_with_one_side_are_dropped(path: Path) -> None:
    half = {
        "topic": "tickers.BTCUSDT",
        "type": "delta",
        "ts": 1,
        "data": {"symbol": "BTCUSDT", "bid1Price": "1", "bid1Size": "2"},
    }
    assert read(path, lines(half)).dropped == {"not in market.bbo: tickers": 1}


def test_okx(path: Path) -> None:
    event = {"event": "subscribe", "arg": {"channel": "trades", "instId": "BTC-USDT"}, "connId": "a4d3ae55"}
    data = lines(
        event, OKX_TRADE, OKX_BEST, okx_book("snapshot", -1, 10), okx_book("update", 10, 15), okx_book("update", 15, 15)
    )
    assert [row[:1] + row[3:] for row in read(path, data, table="trade").rows] == [
        (1630048897897 * MS, "BTC-USDT", 42219_900_000_000, 0.12060306, 1, 130639474)
    ]
    assert [row[3:] for row in read(path, table="bbo").rows] == [
        ("BCH-USDT-SWAP", 111_050_000_000, 57745.0, 111_060_000_000, 55154.0, 363996337)
    ]
    found = read(path, table="l2")
    assert found.bad == [] and [row[3:] for row in found.rows[:3]] == [
        ("BTC-USDT", 1, 8476_970_000_000, 256.0, 10, 10, 0, True, False),
        ("BTC-USDT", 1, 8475_550_000_000, 0.0, 10, 10, 0, True, False),
        ("BTC-USDT", -1, 8476_980_000_000, 415.0, 10, 10, 0, True, True),
    ]
    assert {row[7:10] for row in found.rows[3:6]} == {(11, 15, 10)}


def test_okx_gaps(path: Path) -> None:
    found = read(
        path, lines(okx_book("snapshot", -1, 10), okx_book("update", 10, 15), okx_book("update", 18, 20)), table="l2"
    )
    assert [bad.error.split(";")[0] for bad in found.bad] == [
        "gap in depth of BTC-USDT: the changes behind 15 up to 18 are missing"
    ]
    assert (
        read(
            path, lines(okx_book("snapshot", -1, 10), okx_book("update", 10, 3), okx_book("update", 3, 4)), table="l2"
        ).bad
        == []
    )


def test_coinbase(path: Path) -> None:
    last = {**COINBASE_MATCH, "type": "last_match"}
    data = lines(
        {"type": "subscriptions", "channels": []},
        last,
        COINBASE_MATCH,
        COINBASE_SNAPSHOT,
        COINBASE_UPDATE,
        COINBASE_TICKER,
    )
    assert [row[:1] + row[3:] for row in read(path, data, table="trade").rows] == [
        (1415348367028459000, "BTC-USD", 400_230_000_000, 5.23512, 1, 10)
    ]
    found = read(path, table="l2")
    assert [(row[0], *row[4:7], *row[10:]) for row in found.rows] == [
        (RECV + 3 * MS, 1, 10101_100_000_000, 0.4505414, True, False),
        (RECV + 3 * MS, -1, 10102_550_000_000, 0.57753524, True, True),
        (1565815347265000000, 1, 10101_800_000_000, 0.162567, False, False),
        (1565815347265000000, -1, 10102_000_000_000, 0.0, False, True),
    ]
    assert [row[3:] for row in read(path, table="bbo").rows] == [
        ("ETH-USD", 1285_040_000_000, 0.46688654, 1285_270_000_000, 1.5663704, 37475248783)
    ]


def advanced(channel: str, **event: Any) -> dict[str, Any]:
    """A message of Coinbase Advanced Trade with one event."""
    when = "2026-04-07T14:30:00.123456Z"
    return {"channel": channel, "client_id": "", "timestamp": when, "sequence_num": 7, "events": [event]}


def update(side: str, at: str, size: str) -> dict[str, str]:
    return {"side": side, "event_time": "1970-01-01T00:00:00Z", "price_level": at, "new_quantity": size}


ADVANCED_TRADE = {
    "trade_id": "995098700", "product_id": "BTC-USD", "price": "68900.50", "size": "0.0015", "side": "BUY",
    "time": "2026-04-07T14:30:02.789012Z",
}  # fmt: skip
ADVANCED = [
    advanced("market_trades", type="update", trades=[ADVANCED_TRADE]),
    advanced(
        "l2_data", type="snapshot", product_id="BTC-USD", updates=[update("offer", "11", "2"), update("bid", "9", "1")]
    ),
    advanced("l2_data", type="update", product_id="BTC-USD", updates=[update("offer", "11", "0")]),
    advanced(
        "ticker",
        type="update",
        tickers=[
            {
                "product_id": "BTC-USD",
                "best_bid": "9",
                "best_bid_quantity": "1",
                "best_ask": "11",
                "best_ask_quantity": "2",
            }
        ],
    ),
]
ADVANCED_AT = 1_775_572_200_123_456_000


def test_coinbase_advanced_trade(path: Path) -> None:
    old = advanced("market_trades", type="snapshot", trades=[ADVANCED_TRADE])
    data = lines(advanced("subscriptions"), old, *ADVANCED)
    found = read(path, data, table="trade")
    assert found.rows == [
        (1_775_572_202_789_012_000, RECV + 2 * MS, 2, "BTC-USD", 68_900_500_000_000, 0.0015, -1, 995098700)
    ]
    assert found.dropped["not in market.trade: trade snapshot"] == 1
    assert [(row[0], *row[3:7], *row[10:]) for row in read(path, table="l2").rows] == [
        (ADVANCED_AT, "BTC-USD", 1, 9_000_000_000, 1.0, True, False),
        (ADVANCED_AT, "BTC-USD", -1, 11_000_000_000, 2.0, True, True),
        (ADVANCED_AT, "BTC-USD", -1, 11_000_000_000, 0.0, False, True),
    ]
    assert [row[3:] for row in read(path, table="bbo").rows] == [
        ("BTC-USD", 9_000_000_000, 1.0, 11_000_000_000, 2.0, 0)
    ]


def test_coinbase_tickers_from_before_they_had_sizes_are_dropped(path: Path) -> None:
    old = {key: value for key, value in COINBASE_TICKER.items() if not key.endswith("_size")}
    found = read(path, lines(old, COINBASE_TICKER), table="bbo")
    assert len(found.rows) == 1 and not found.bad
    assert found.dropped == {"not in market.bbo: ticker without sizes": 1}


KRAKEN_V1: list[Any] = [
    [0, [["5541.20000", "0.15850568", "1534614057.321597", "s", "l", ""]], "trade", "XBT/USD"],
    [0, ["5698.4", "5700.0", "1542057299.545897", "1.01234567", "0.98765432"], "spread", "XBT/USD"],
    [0, {"a": ["5525.4", 1, "1.0"], "b": ["5525.1", 1, "1.5"], "c": ["5525.1", "0.003"]}, "ticker", "XBT/USD"],
    [
        0,
        {"as": [["5541.3", "2.5", "1534614248.123678"]], "bs": [["5541.2", "1.5", "1534614248.765567"]]},
        "book-10",
        "XBT/USD",
    ],
    [
        1234,
        {"a": [["5541.3", "0.0", "1534614335.345903"]]},
        {"b": [["5541.2", "0.4", "1534614335.5", "r"]], "c": "974942666"},
        "book-10",
        "XBT/USD",
    ],
]


def hyper(channel: str, data: Any) -> dict[str, Any]:
    return {"channel": channel, "data": data}


LEVEL = {"px": "105055.0", "sz": "3.03622", "n": 5}
HYPERLIQUID = [
    hyper(
        "trades",
        [
            {
                "coin": "BTC",
                "side": "A",
                "px": "105056.0",
                "sz": "0.00219",
                "time": 1737918794873,
                "tid": 121451470284048,
            }
        ],
    ),
    hyper(
        "l2Book",
        {"coin": "BTC", "time": 1737918843000, "levels": [[LEVEL], [{"px": "105056.0", "sz": "2", "n": 1}] * 2]},
    ),
    hyper("bbo", {"coin": "BTC", "time": 1737918843001, "bbo": [LEVEL, {"px": "105056.0", "sz": "2", "n": 1}]}),
]


def test_hyperliquid(path: Path) -> None:
    half = hyper("bbo", {"coin": "BTC", "time": 1737918843001, "bbo": [LEVEL, None]})
    data = lines(hyper("subscriptionResponse", {}), half, *HYPERLIQUID)
    found = read(path, data, table="trade")
    assert found.rows == [
        (1737918794873 * MS, RECV + 2 * MS, 2, "BTC", 105_056_000_000_000, 0.00219, -1, 121451470284048)
    ]
    assert found.dropped["not in market.trade: bbo of one side"] == 1 and not found.bad
    assert [(row[0], *row[4:7], *row[10:]) for row in read(path, table="l2").rows] == [
        (1737918843000 * MS, 1, 105_055_000_000_000, 3.03622, True, False),
        (1737918843000 * MS, -1, 105_056_000_000_000, 2.0, True, False),
        (1737918843000 * MS, -1, 105_056_000_000_000, 2.0, True, True),
    ]
    assert [row[3:] for row in read(path, table="bbo").rows] == [
        ("BTC", 105_055_000_000_000, 3.03622, 105_056_000_000_000, 2.0, 0)
    ]


def test_kraken_v1(path: Path) -> None:
    status = {"connectionID": 18234, "event": "systemStatus", "status": "online", "version": "1.8.1"}
    candle = [42, ["1542057314.748456", "1542057360.435743"], "ohlc-5", "XBT/USD"]
    data = lines(status, {"event": "heartbeat"}, candle, *KRAKEN_V1)
    found = read(path, data, table="trade")
    assert found.rows == [(1_534_614_057_321_597_000, RECV + 3 * MS, 3, "XBT/USD", 5541_200_000_000, 0.15850568, -1, 0)]
    assert found.dropped["not in market.trade: ohlc"] == 1 and not found.bad
    assert [(row[0], *row[3:]) for row in read(path, table="bbo").rows] == [
        (1_542_057_299_545_897_000, "XBT/USD", 5698_400_000_000, 1.01234567, 5700_000_000_000, 0.98765432, 0),
        (RECV + 5 * MS, "XBT/USD", 5525_100_000_000, 1.5, 5525_400_000_000, 1.0, 0),
    ]
    assert [(row[0], *row[4:7], *row[10:]) for row in read(path, table="l2").rows] == [
        (1_534_614_248_765_567_000, 1, 5541_200_000_000, 1.5, True, False),
        (1_534_614_248_765_567_000, -1, 5541_300_000_000, 2.5, True, True),
        (1_534_614_335_500_000_000, 1, 5541_200_000_000, 0.4, False, False),
        (1_534_614_335_500_000_000, -1, 5541_300_000_000, 0.0, False, True),
    ]


def test_kraken_numbers_are_read_from_their_text(path: Path) -> None:
    old = KRAKEN_TRADE.replace('"update"', '"snapshot"')
    data = lines(
        {"method": "subscribe", "success": True},
        {"channel": "heartbeat"},
        old,
        KRAKEN_TRADE,
        KRAKEN_SNAPSHOT,
        KRAKEN_BOOK,
        KRAKEN_TICKER,
    )
    found = read(path, data, table="trade")
    assert [row[:1] + row[3:] for row in found.rows] == [
        (1695628177708706000, "MATIC/USD", 511_700_000, 40.0, -1, 4665906),
        (1695628177700000000, "BTC/USD", 45285_200_000_000, 1e-05, 1, 7),
    ]
    assert found.dropped["not in market.trade: trade snapshot"] == 1
    assert [(row[0], *row[3:7], *row[10:]) for row in read(path, table="l2").rows] == [
        (RECV + 4 * MS, "MATIC/USD", 1, 566_600_000, 4831.75496356, True, False),
        (RECV + 4 * MS, "MATIC/USD", -1, 566_800_000, 4410.79769741, True, True),
        (1696613755440295000, "MATIC/USD", 1, 565_700_000, 1098.3947558, False, False),
        (1696613755440295000, "MATIC/USD", -1, 566_800_000, 0.0, False, True),
    ]
    assert [row[3:] for row in read(path, table="bbo").rows] == [
        ("ALGO/USD", 100_250_000, 740.0, 100_360_000, 1361.44813783, 0)
    ]


KRAKEN_SIDES = {
    "bids": "45283.5 0.10000000 45283.4 1.54582015 45282.1 0.10000000 45281.0 0.10000000 45280.3 1.54592586 "
    "45279.0 0.07990000 45277.6 0.03310103 45277.5 0.30000000 45277.3 1.54602737 45276.6 0.15445238",
    "asks": "45285.2 0.00100000 45286.4 1.54571953 45286.6 1.54571109 45289.6 1.54560911 45290.2 0.15890660 "
    "45291.8 1.54553491 45294.7 0.04454749 45296.1 0.35380000 45297.5 0.09945542 45299.5 0.18772827",
}


def kraken_book(kind: str, sides: dict[str, str], checksum: int) -> str:
    parts = []
    for name, levels in sides.items():
        texts = levels.split()
        pairs = zip(texts[::2], texts[1::2], strict=True)
        parts.append(f'"{name}":[{",".join(f"""{{"price":{at},"qty":{much}}}""" for at, much in pairs)}]')
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD",{",".join(parts)},"checksum":{checksum}}}]}}'
    )


def kraken_changes() -> list[str]:
    """The snapshot of Kraken's guide, which has a checksum, and three changes, whose checksums are by the guide's recipe."""
    from zlib import crc32

    books = {}
    for name, levels in KRAKEN_SIDES.items():
        texts = levels.split()
        books[name] = dict(zip(texts[::2], texts[1::2], strict=True))
    messages = [kraken_book("snapshot", KRAKEN_SIDES, 3310070434)]
    for change in (
        {"bids": "45283.6 2.00000000"},
        {"asks": "45285.2 0.00000000 45300.0 0.50000000"},
        {"bids": "45283.6 0.10000000"},
    ):
        for name, levels in change.items():
            texts = levels.split()
            books[name] |= dict(zip(texts[::2], texts[1::2], strict=True))
            books[name] = {at: much for at, much in books[name].items() if float(much)}
            best = sorted(books[name], key=float, reverse=name == "bids")[:10]
            books[name] = {at: books[name][at] for at in best}
        digits = [
            text.replace(".", "").lstrip("0")
            for name in ("asks", "bids")
            for level in books[name].items()
            for text in level
        ]
        messages.append(kraken_book("update", change, crc32("".join(digits).encode())))
    return messages


def test_a_kraken_book_is_checked_by_the_checksum_of_its_guide(path: Path) -> None:
    messages = kraken_changes()
    found = read(path, lines(*messages), table="l2", block_bytes=64)
    assert found.bad == [] and len(found.rows) == 24
    for gone in (1, 2):
        found = read(path, lines(*messages[:gone], *messages[gone + 1 :], *messages), table="l2", block_bytes=64)
        (bad,) = found.bad
        assert bad.error.startswith("gap in depth of BTC/USD: its checksum is ") and bad.seq == gone
        for position, done in zip(found.after, found.rows_after, strict=True):
            rest = Read(CryptoRaw(path, table="l2", block_bytes=64), position)
            assert rest.rows == found.rows[done:]
            assert rest.bad == [bad for bad in found.bad if (bad.seq or 0) >= position["seq"]]


def test_a_kraken_recording_that_lost_digits_is_not_called_broken(path: Path) -> None:
    messages = [json.dumps(json.loads(text)) for text in kraken_changes()]
    assert "0.001," in messages[0] or "0.001}" in messages[0]
    assert read(path, lines(*messages, *messages[2:]), table="l2").bad == []


VENUES = {
    "bybit": [BYBIT_TRADE, bybit_book("snapshot", 5), BYBIT_TICKER],
    "okx": [OKX_TRADE, OKX_BEST, okx_book("snapshot", -1, 10)],
    "coinbase": [COINBASE_MATCH, COINBASE_SNAPSHOT, COINBASE_UPDATE, COINBASE_TICKER, *ADVANCED],
    "hyperliquid": HYPERLIQUID,
    "kraken": [*(json.loads(text) for text in (KRAKEN_TRADE, KRAKEN_SNAPSHOT, KRAKEN_BOOK, KRAKEN_TICKER)), *KRAKEN_V1],
}


@pytest.mark.parametrize("venue", VENUES)
def test_venues_are_recognised_by_any_of_their_messages(path: Path, venue: str) -> None:
    for message in VENUES[venue]:
        data = lines(message)
        assert is_crypto_raw(data)
        path.write_bytes(data)
        assert CryptoRaw(path).schema.metadata[b"penstock.venue"].decode() == venue
    found = inspect_crypto_raw(path)
    assert found["venue"] == venue and found["messages"] == 1 and found["bad"] == 0


def test_a_recording_without_best_prices_opens_as_what_it_has(path: Path) -> None:
    for messages, table in (
        (HYPERLIQUID, "bbo"),
        (HYPERLIQUID[:2], "l2"),
        (HYPERLIQUID[:1], "trade"),
        (KRAKEN_V1[-1:], "l2"),
    ):
        path.write_bytes(lines(*messages))
        assert open_crypto_raw(path).table == table
        assert f"table={table!r}" in inspect_crypto_raw(path)["hint"]
    assert open_crypto_raw(path, table="trade").table == "trade"


def broken(value: Any) -> list[Any]:
    """`value` with one part of it taken out or of another type, in every place."""
    found: list[Any] = [None, 5, "x", [], {}]
    if isinstance(value, dict):
        for key, inner in value.items():
            found.append({k: v for k, v in value.items() if k != key})
            found += [{**value, key: other} for other in broken(inner)]
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            found += [[*value[:place], other, *value[place + 1 :]] for other in broken(inner)]
    return found


@pytest.mark.parametrize("venue", VENUES)
def test_no_message_of_another_shape_stops_a_recording(path: Path, venue: str) -> None:
    shapes = [shape for message in VENUES[venue] for shape in broken(message)]
    for table in ("bbo", "trade", "l2"):
        found = read(path, lines(*shapes), table=table, venue=venue)
        assert found.records == len(shapes) and found.bad
