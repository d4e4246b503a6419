"""Crypto venues over WebSocket: subscriptions, book snapshots asked for where they are needed, gaps told at once.

    feed = sources.live_crypto("binance-usdm", ["BTCUSDT", "ETHUSDT"], table="l2")

Messages become rows as those of recorder files do (`CryptoRaw`), so a recording of the feed, or the same lines in a
recorder's file, give the same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from ...pipeline.columns import as_numpy
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.names import names_in
from ...pipeline.source import Decoded
from ..market._crypto_subscribe import snapshot_url, stream_url, subscriptions
from ..market._crypto_tables import TABLES, crypto_schema
from ..market._crypto_venues import VENUES, is_fast, reader_of
from ._losses import Losses
from ._retry import Retry
from .arrival import Arrival
from .feed import Live
from .inlet import Inlet
from .session import Codec, Framed, Request, Session

__all__ = ["CryptoMessages", "live_crypto"]

#: Channel of the answers to snapshot requests.
_SNAPSHOT = 1
_PATIENCE_NS = 60 * 10**9
_MOST_ANSWER = 64 << 20
#: Messages among which one is looked for that comes twice.
_REMEMBERED = 64
#: Where the numbers of a symbol's trades go up by one.
_COUNTED = frozenset(
    (venue, table)
    for venue in ("binance-spot", "binance-usdm", "binance-coinm", "coinbase", "kraken")
    for table in ("trade", "agg_trade")
)


@dataclass(frozen=True)
class CryptoMessages(Codec):
    """One table of a venue's messages, with the columns of `CryptoRaw`.

    For ``l2`` of Binance, whose stream has no snapshots, one is fetched over HTTP for every book that is out of step: when
    the feed begins, behind a gap and after a lost connection; `snapshots` is where, with ``{symbol}`` in it (None: the
    venue's own address; empty: never). Its rows have `is_snapshot`. The other venues send snapshots in the stream, again
    after each subscription.

    What is lost shows at the next message of its symbol: in books by the venue's numbers (Kraken: check sums), in trades of
    Binance, Coinbase and Kraken by theirs, which are a bad record ``live.gap``. Trades of Bybit and OKX, books of Coinbase
    and best prices have no numbers that go up by one: a lost message cannot be seen, if not by a lost connection. A message
    that comes twice among the last 64 is taken once.
    """

    name: ClassVar[str] = "crypto"
    venue: str
    table: str = "bbo"
    symbols: tuple[str, ...] = ()
    price_decimals: int = 9
    snapshots: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", names_in(self.symbols))
        if self.venue not in VENUES:
            raise GraphError(f"no venue {self.venue!r}", expected=" | ".join(VENUES))
        if self.table not in TABLES:
            raise GraphError(f"no table {self.table!r}", expected=" | ".join(TABLES))
        if self.snapshots and "{symbol}" not in self.snapshots:
            raise GraphError(f"{self.snapshots=} does not say where the symbol goes", expected="{symbol} in it")

    def schema(self, source: str) -> pa.Schema:
        return crypto_schema(self.table, source, self.venue, self.price_decimals)

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(self, context, source, position)

    def greeting(self, url: str) -> Sequence[str]:
        """What subscribes to the symbols; nothing where the URL names the streams (Binance)."""
        return subscriptions(self.venue, self.table, self.symbols, urlsplit(url).path)

    @property
    def snapshot_address(self) -> str:
        """Where snapshots are, empty where none are fetched."""
        if self.snapshots is not None:
            return self.snapshots
        return snapshot_url(self.venue) if self.table == "l2" else ""

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> CryptoMessages:
        """The codec of which `describe` gave `values`."""
        return cls(**{**values, "symbols": tuple(values.get("symbols", ()))})


class _Session(Session):
    def __init__(
        self, codec: CryptoMessages, context: Context, source: str, position: Mapping[str, Any] | None
    ) -> None:
        from ..market._crypto_decode import Layout, LineDecoder

        self._address, self._source, self._pool = codec.snapshot_address, source, context.pool
        self._context = context
        symbol = codec.symbols[0] if len(codec.symbols) == 1 else None
        layout = Layout(
            read=reader_of(codec.venue),
            fast=is_fast(codec.venue),
            table=codec.table,
            schema=codec.schema(source),
            price_decimals=codec.price_decimals,
            symbol=symbol,
            first_symbol=symbol,
            file=source,
        )
        saved: dict[str, Any] | None = dict(position) if position else None
        self._decoder = LineDecoder(layout, context.pool, saved)
        self._offset, self._line = (int(saved["offset"]), int(saved["line"])) if saved else (0, 1)
        self._losses = Losses()
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._trades: dict[str, int] | None = {} if (codec.venue, codec.table) in _COUNTED else None
        self._asked: set[str] = set()

    def position(self) -> Mapping[str, Any]:
        saved = {"offset": self._offset, "line": self._line, **self._decoder.save()}
        return saved if self._trades is None else {**saved, "trades": dict(self._trades)}

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        from ..market._crypto_decode import Made

        made = Made()
        noticed: list[BadRecord] = []
        lines: list[bytes] = []
        seq, twice = first_seq, 0
        for arrival in arrivals:
            if arrival.event:
                seq += self._decode(lines, seq, made)
                lines = []
                noticed += self._heard(arrival)
            elif text := arrival.data.replace(b"\n", b" ").strip():
                if text in self._recent:
                    twice += 1
                    continue
                self._recent.append(text)
                lines.append(b"%d %s\n" % (max(0, arrival.recv_ns), text))
                if arrival.channel == _SNAPSHOT:
                    self._asked.discard(_symbol_of(text))
        seq += self._decode(lines, seq, made)
        size = sum(len(arrival.data) for arrival in arrivals)
        decoded = Decoded(made.batches, made.bad, made.dropped)
        noticed += self._missing(made.batches)
        dropped = {"messages that came twice": twice} if twice else {}
        return Framed(decoded, seq - first_seq, size, noticed, dropped, self._requests())

    def finish(self, first_seq: int) -> Framed | None:
        told = self._losses.ended(f"{self._source}, line {self._line}")
        return Framed(Decoded(()), 0, 0, told) if told else None

    def _missing(self, batches: Sequence[pa.RecordBatch]) -> list[BadRecord]:
        """Jumps in the numbers of trades, which go up by one with each trade of a symbol."""
        told: list[BadRecord] = []
        if self._trades is None:
            return told
        for batch in batches:
            symbols, numbers = batch.column("symbol"), as_numpy(batch.column("trade_id")).astype(np.int64)
            numbered = numbers > 0  # Kraken's first version has none
            codes, numbers = as_numpy(symbols.indices)[numbered], numbers[numbered]
            for code in np.unique(codes).tolist():
                symbol = symbols.dictionary[code].as_py()
                ids = numbers[codes == code]
                before = np.maximum.accumulate(np.concatenate([[self._trades.get(symbol, ids[0] - 1)], ids]))
                for at in np.flatnonzero(ids > before[:-1] + 1).tolist():
                    error = f"trades {before[at] + 1} to {ids[at] - 1} of {symbol} never came"
                    told.append(BadRecord(f"{self._source}, line {self._line}", "live.gap", error, b""))
                self._context.note("trades that came behind later ones", int((ids <= before[:-1]).sum()))
                self._trades[symbol] = int(before[-1])
        return told

    def _decode(self, lines: Sequence[bytes], seq: int, made: Any) -> int:
        from ..text._line_framer import text_of

        if not lines:
            return 0
        joined = b"".join(lines)
        text = text_of(joined, self._pool, offset=self._offset, line=self._line, seq=seq, records=len(lines))
        found = self._decoder.decode(text)
        self._offset += len(joined)
        self._line += len(lines)
        made.batches += found.batches
        made.bad += found.bad
        made.dropped += found.dropped
        return len(lines)

    def _heard(self, arrival: Arrival) -> list[BadRecord]:
        if arrival.event != "connected":
            self._decoder.books.lost()
        return self._losses.heard(arrival, f"{self._source}, line {self._line}")

    def _requests(self) -> list[Request]:
        if not self._address or self._losses.any:
            return []
        names = self._decoder.symbols.names
        wanted = [names[code] for code in self._decoder.books.waiting() if names[code] not in self._asked]
        self._asked.update(wanted)
        return [partial(_fetch, self._address.format(symbol=name), name) for name in wanted]

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        made: Decoded = payload
        return made


def _fetch(url: str, symbol: str, inlet: Inlet, context: Context) -> None:
    """GET a snapshot, again and again for a minute; its symbol is put in front, since it does not say."""
    from urllib.error import URLError
    from urllib.request import Request as HttpRequest
    from urllib.request import urlopen

    retry = Retry(context, _PATIENCE_NS)
    while not inlet.done:
        try:
            with urlopen(HttpRequest(url, headers={"User-Agent": "penstock"}), timeout=5) as answer:
                body = answer.read(_MOST_ANSWER)
        except (URLError, OSError):
            if not retry.wait(inlet):
                return
            continue
        if body.lstrip().startswith(b"{"):
            data = b'{"symbol":"' + symbol.encode() + b'",' + body.lstrip()[1:]
            inlet.put(Arrival(context.clock.now_ns(), data, 0, _SNAPSHOT))
        return


def _symbol_of(text: bytes) -> str:
    """The symbol that `fetch` put in front of a snapshot."""
    return text[11 : text.find(b'"', 11)].decode("utf-8", "replace")


def live_crypto(
    venue: str, symbols: str | Sequence[str], *, table: str = "bbo", url: str | None = None, **options: Any
) -> Live:
    """One table of `symbols` from a venue's public feed; `url` is another address, such as that of a replay.

    Symbols are the venue's own (``BTCUSDT``, ``BTC-USDT``, ``BTC-USD``, ``BTC/USD``). Options are those of `Live`, and
    `price_decimals` and `snapshots` of `CryptoMessages`. Venues cut a connection after 24 hours; it is replaced before.
    """
    own = {key: options.pop(key) for key in ("price_decimals", "snapshots") if key in options}
    symbols = names_in(symbols)
    codec = CryptoMessages(venue, table, symbols, **own)
    return Live(url if url is not None else stream_url(venue, table, symbols), codec, **options)
