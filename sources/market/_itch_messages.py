"""ITCH 5.0 messages to tables, wherever the messages come from: a file, a capture, a socket.

Work is in two parts, as for every source. `ItchMessages.take` runs in order and is cheap: it checks lengths, learns symbols
from stock directory messages, and for ``market.trades`` joins executions with the orders they meet. It gives `Part`s, which
`ItchMessages.decode` turns into batches in any thread.

    messages = ItchMessages("trades", source="feed.pcap", midnight=midnight, pool=context.pool)
    for part in messages.take(data, offsets, sizes, count, first_seq=seq, ts_recv=times, place=place):
        decoded = messages.decode(part)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool
from ...pipeline.source import Decoded
from . import _itch_kernels as kernels
from ._itch_decode import decoder
from ._itch_format import length_table, type_label
from ._itch_parts import Directory, Part, Symbols
from ._itch_tables import LATEST, table_schema

__all__ = ["MOST_ORDERS", "Directory", "ItchMessages", "Part", "Symbols"]

#: Orders that may rest in the book at once, if nothing else is said.
MOST_ORDERS = 1 << 24
#: Bad messages of a part at most, and bytes that each keeps at most.
_BAD = 1024
_KEPT = 1 << 16


class ItchMessages:
    """Decodes ITCH 5.0 messages into one table.

    `table` is ``l3``, ``status``, ``noii`` or ``trades``; `source` a name for the schema's metadata; `midnight` that of the
    session in New York, ns since the Unix epoch; `pool` the memory for columns; `max_orders` how many orders may rest at
    once (``trades`` only; StateLimitError beyond). `schema` is the schema of the batches, `directory` the symbols.
    """

    def __init__(
        self,
        table: str,
        *,
        source: str,
        midnight: int,
        pool: BufferPool,
        max_orders: int = MOST_ORDERS,
    ) -> None:
        self.table = table
        self.schema = table_schema(table, source)
        self.directory = Directory()
        self._decode = decoder(table, self.schema, midnight, pool)
        self._pool = pool
        self._lengths = length_table()
        self._used = np.zeros(65536, np.int32)
        self._mark = 0
        self._state = np.zeros(3, np.int64)
        self._orders: Any = None
        if table == "trades":
            from ._order_store import OrderStore

            self._orders = OrderStore(max_orders)

    def take(
        self,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.uint32],
        sizes: npt.NDArray[np.integer[Any]],
        count: int,
        *,
        first_seq: int,
        place: Callable[[int], str],
        ts_recv: npt.NDArray[np.int64] | None = None,
        keep: tuple[Any, ...] = (),
    ) -> Iterator[Part]:
        """Messages in order, as parts that decode on their own; call it for one buffer after the other, in order.

        ``data[offsets[i] : offsets[i] + sizes[i]]`` is message i, from its type byte on, without a length prefix; `seq` of
        it is ``first_seq + i``. The last 64 bytes of `data` must be zero and belong to no message. `ts_recv[i]` is when it
        was received (ns since the epoch; `ts_event` where None). `place(i)` says for a bad record where it was. `keep` are
        objects that must live as long as the buffers. `offsets` may be written to; none of the arrays may be written to by
        the caller while parts of them are decoded.

        A message of a known type with a wrong length, an empty one, and a second name for a locate are bad records
        (``itch.message``); unknown types are counted. Raises ValueError for messages outside `data`.
        """
        from . import _itch_table_kernels as side

        if count:
            ends = offsets[:count].astype(np.int64) + sizes[:count]
            if len(data) < kernels.PAD or int(ends.max()) > len(data) - kernels.PAD or data[-kernels.PAD :].any():
                raise ValueError(
                    f"messages reach into the last {kernels.PAD} bytes of their buffer, which must be zero"
                )
        first = 0
        state = self._state
        while first < count:
            self._mark += 1
            state[0] = 0
            bad = np.empty((_BAD, 2), np.int64)
            before = offsets[first:count].copy()
            stop = side.learn(
                data,
                offsets,
                sizes,
                first,
                count,
                self._lengths,
                bad,
                self.directory.names,
                self.directory.named,
                self._used,
                self._mark,
                state,
            )
            wrong = tuple(
                (what, number - first, int(before[number - first]), int(sizes[number]))
                for what, number in bad[: int(state[0])].tolist()
            )
            part = Part(
                data,
                offsets[first:stop],
                stop - first,
                first_seq + first,
                self.directory.values(int(state[2]), int(state[1])),
                place if first == 0 else _shifted(place, first),
                None if ts_recv is None else ts_recv[first:stop],
                wrong,
                keep=keep,
            )
            yield self.join(part)
            first = stop

    def join(self, part: Part) -> Part:
        """`part` with what its executions met, for ``trades``; itself for other tables. To be called in order."""
        if self._orders is None or not part.count:
            return part
        lease = self._pool.take(5 * part.count)
        price: Any = lease.array(np.uint32, part.count)
        side: Any = lease.array(np.int8, part.count, 4 * part.count)
        self._orders.apply(part.data, part.offsets, part.count, LATEST, price, side)
        return replace(part, resting=(price, side), keep=(*part.keep, lease))

    def decode(self, part: Part) -> Decoded:
        """Batches, bad records in order, and drops by reason: ``not in market.<table>: <type>``. Pure and thread-safe."""
        decoded = self._decode(part)
        if not part.bad:
            return decoded
        bad = [*decoded.bad, *(self._wrong(part, *row) for row in part.bad)]
        bad.sort(key=lambda record: record.seq or 0)
        return Decoded(decoded.batches, bad, decoded.dropped)

    def _wrong(self, part: Part, what: int, number: int, at: int, size: int) -> BadRecord:
        raw = part.data[at : at + min(size, _KEPT)].tobytes()
        if what == kernels.RENAMED:
            locate = int.from_bytes(raw[1:3], "big")
            error = f"a stock directory message gives locate {locate} a second name"
        elif not raw:
            error = "a message without bytes"
        else:
            want = int(self._lengths[raw[0]])
            error = f"the message has {size} bytes, but type {type_label(raw[0])!r} has {want}"
        return BadRecord(part.place(number), "itch.message", error, raw, part.first_seq + number)


def _shifted(place: Callable[[int], str], first: int) -> Callable[[int], str]:
    return lambda number: place(first + number)
