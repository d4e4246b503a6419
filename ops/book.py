"""Order book features: every order of every symbol is kept, and each message gives the top of its book as it then is.

ps.read(sources.Itch("01302019.NASDAQ_ITCH50")).apply(ops.BookFeatures())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import ColumnLayout, as_numpy
from ..pipeline.context import Context
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import Operator, OperatorSpec, State
from ..pipeline.partition import Partitioned
from ..pipeline.schema import event_schema

__all__ = ["BookFeatures"]

_INPUTS: dict[str, pa.DataType] = {
    "ts_event": pa.timestamp("ns", tz="UTC"),
    "ts_recv": pa.timestamp("ns", tz="UTC"),
    "seq": pa.uint64(),
    "locate": pa.uint16(),
    "symbol": pa.dictionary(pa.int32(), pa.utf8()),
    "msg_type": pa.uint8(),
    "side": pa.int8(),
    "order_id": pa.uint64(),
    "new_order_id": pa.uint64(),
    "price": pa.int64(),
    "size": pa.uint32(),
    "flags": pa.uint8(),
}
_OUTPUTS: dict[str, pa.DataType] = {
    "symbol": pa.dictionary(pa.int32(), pa.utf8()),
    "bid_px": pa.int64(),
    "bid_sz": pa.int64(),
    "ask_px": pa.int64(),
    "ask_sz": pa.int64(),
    "spread": pa.float64(),
    "mid": pa.float64(),
    "microprice": pa.float64(),
    "imbalance": pa.float32(),
    "trade_sz": pa.int64(),
    "last_px": pa.int64(),
    "volume": pa.int64(),
}
_REASONS = (
    "order not in the book",
    "order id already in the book",
    "order without a side",
    "changes no book",
    "book has one side only",
)


@dataclass(frozen=True)
class BookFeatures(OperatorSpec):
    """Keep full order books from ``market.l3`` rows; for each that can change a book or trade, give the top of the book.

    What each message does to the book of its stock locate:

    * A, F add an order. D takes it away, X takes `size` off it, U puts a new order (new id, price, size, same side) in
      its place, losing its place in time.
    * E and C execute `size` of it: the order shrinks at its own price. E trades at that price, C at the price it says,
      and only if printable (`flags` & 1). More than what is left takes the order away.
    * P (hidden trade) and Q (cross) trade at their price and leave the book alone; a Q of 0 shares is no trade.
    * B (a trade is broken after the fact) leaves book and volume alone and gives no row.

    Output, behind the event columns of the message: `symbol`; `bid_px`, `ask_px` int64 (1e-9 USD) and `bid_sz`, `ask_sz`
    int64 (shares, all orders at the best price); `spread` (ask - bid), `mid`, `microprice` ((bid_px * ask_sz + ask_px *
    bid_sz) / (bid_sz + ask_sz)) float64 in USD; `imbalance` ((bid_sz - ask_sz) / (bid_sz + ask_sz)) float32; `trade_sz`
    int64 (shares that this message traded), `last_px` int64 (1e-9 USD, of the last trade, 0 before the first) and
    `volume` int64 (shares traded so far). There are no nulls and no NaN: an empty side has price and size 0, `spread` is
    then 0, `mid` and `microprice` the price of the other side (0 if both are empty), `imbalance` 1, -1 or 0. With
    `two_sided` such rows are left out and counted.

    Locked and crossed books (possible before the open and in halts) are shown as they are: `spread` is then 0 or less.

    Rows without effect are counted as dropped, by reason: an order that is not in the book (a recording that begins in
    the middle of the day), an order id added twice, an order without a side. `max_orders` bounds the state; more live
    orders raise StateLimitError.
    """

    two_sided: bool = False
    max_orders: int = 4_000_000

    kind: ClassVar[str] = "book"

    def __post_init__(self) -> None:
        if self.max_orders < 1:
            raise GraphError(f"BookFeatures needs room for at least one order, got max_orders={self.max_orders}")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        for name, kind in _INPUTS.items():
            if schema.get_field_index(name) < 0:
                raise GraphError(f"BookFeatures reads market.l3, and column {name!r} is missing", got=schema.names)
            if schema.field(name).type != kind:
                raise GraphError(f"BookFeatures: column {name!r}", expected=kind, got=schema.field(name).type)
        fields = [pa.field(name, kind, nullable=False) for name, kind in _OUTPUTS.items()]
        meta = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
        return event_schema(
            fields,
            source=meta.get("penstock.source", ""),
            format=meta.get("penstock.format", ""),
            clock=meta.get("penstock.clock", "exchange"),
            units="*_px and *price 1e-9 USD where int64, USD where float64; *_sz and volume shares",
        )

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Books(self, context, self.output_schema(*inputs))

    def state_bound(self, *inputs: pa.Schema) -> int:
        slots = 1 << (2 * self.max_orders).bit_length()
        # the table, and while it grows its predecessor; the same for the arena of price levels; book sides and trades
        return slots * 32 * 3 // 2 + (4 * self.max_orders + (16 << 17)) * 16 * 2 + 131_072 * 24 + 65_536 * 16

    def partitioned(self, *inputs: pa.Schema) -> Partitioned | None:
        """None: an order id is looked up among the orders of all stocks, and one added twice is dropped wherever it was.

        Divided by stock, a part could not see that another holds the id.
        """
        return None


class _Books(Operator):
    def __init__(self, spec: BookFeatures, context: Context, schema: pa.Schema) -> None:
        from . import _book_kernels

        self._kernels: Any = _book_kernels
        self._context, self._columns = context, ColumnLayout(schema)
        self._both, self._most = spec.two_sided, spec.max_orders
        self._empty()

    def _empty(self) -> None:
        self._orders: npt.NDArray[np.int64] = np.zeros((4096, 4), np.int64)
        self._sides: npt.NDArray[np.int64] = np.zeros((131_072, 3), np.int64)
        self._levels: npt.NDArray[np.int64] = np.zeros((4096, 2), np.int64)
        self._trades: npt.NDArray[np.int64] = np.zeros((65_536, 2), np.int64)
        self._state: npt.NDArray[np.int64] = np.zeros(2, np.int64)

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        rows = batch.num_rows
        if rows == 0:
            return ()
        inputs: Any = [as_numpy(batch.column(name)) for name in _INPUTS]
        block = self._columns.take(self._context.pool, rows)
        outputs: Any = [block[name] for name in self._columns.names]
        drops = np.zeros(self._kernels.DROPS, np.int64)
        at = written = 0
        while True:
            status, at, written = self._kernels.apply(
                at,
                *inputs,
                self._orders,
                self._sides,
                self._levels,
                self._trades,
                self._state,
                drops,
                self._both,
                written,
                *outputs,
            )
            if status == self._kernels.DONE:
                break
            if status == self._kernels.GROW_ORDERS:
                self._grow_orders()
            else:
                self._grow_levels()
        if self._state[0] > self._most:
            raise StateLimitError(
                f"{self._context.step}: {int(self._state[0])} orders are live, more than max_orders={self._most}; "
                "raise it if memory allows"
            )
        self._context.metrics.state_bytes = self._orders.nbytes + self._levels.nbytes
        for reason, count in zip(_REASONS, drops.tolist(), strict=True):
            self._context.drop(reason, count)
        if not written:
            return ()
        symbols: Any = batch.column("symbol")
        return (block.batch(written, dictionaries={"symbol": symbols.dictionary}),)

    def _grow_orders(self) -> None:
        larger = np.zeros((2 * len(self._orders), 4), np.int64)
        self._kernels.rehash(self._orders, larger)
        self._orders = larger

    def _grow_levels(self) -> None:
        live = int(np.maximum(8, 2 * self._sides[self._sides[:, 2] > 0, 1]).sum())
        larger = np.zeros((max(4096, 2 * live), 2), np.int64)
        self._kernels.compact(self._sides, self._levels, larger, self._state)
        self._levels = larger

    def snapshot(self) -> State:
        live = self._orders[self._orders[:, 3] != 0]
        traded = np.flatnonzero(self._trades.any(axis=1))
        return {
            "orders": live[np.argsort(live[:, 0], kind="stable")],
            "traded": traded,
            "trades": self._trades[traded],
        }

    def restore(self, state: State) -> None:
        saved: Any = np.ascontiguousarray(state["orders"], np.int64)
        self._empty()
        while len(self._orders) < 2 * (len(saved) + 1):
            self._orders = np.zeros((2 * len(self._orders), 4), np.int64)
        at = 0
        while (at := self._kernels.load(at, saved, self._orders, self._sides, self._levels, self._state)) < len(saved):
            self._grow_levels()
        self._trades[state["traded"]] = state["trades"]
