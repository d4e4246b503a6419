"""DBN order records to ``market.l3``: one pass that writes every column while the records are in cache.

Nearly all records of a file are alike, so eight at a time are copied and then asked whether they are; where one is not, the
eight are gone through one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._dbn_kernels import find_name
from ._dbn_loads import i32, i64, u8, u16, u32
from ._dbn_order_columns import AHEAD, LENGTH, eight_orders

__all__ = ["COLUMNS", "ROW", "orders"]

#: Where each column begins, in bytes a row, and the bytes of a row.
COLUMNS = {
    "ts_event": 0, "ts_recv": 8, "seq": 16, "order_id": 24, "price": 32, "symbol": 40, "size": 44, "instrument_id": 48,
    "ts_in_delta": 52, "sequence": 56, "publisher_id": 60, "msg_type": 62, "side": 63, "flags": 64, "channel_id": 65,
}  # fmt: skip
ROW = 66

#: Names that were found lately are kept by some bits of the instrument's id, id and name in one word: where ids alternate,
#: a look-up in a table has branches that are guessed wrong.
_RECENT = 1024
_MIX = np.uint64(0x9E3779B1)
_NO_PRICE = (1 << 63) - 1
_EARLIEST, _LATEST = -(1 << 63), (1 << 63) - 1
_NO_RECORD = 0xFFFFFFFF
# Unsigned, so that no access has to ask whether it counts from the end.
_0, _1, _7, _8, _32 = (np.uint64(number) for number in (0, 1, 7, 8, 32))


@kernel
def _place(instrument: Any) -> Any:
    return ((instrument * _MIX) >> np.uint64(22)) & np.uint64(_RECENT - 1)


@kernel
def _forget(recent: Any) -> None:
    """An id that belongs elsewhere in every place."""
    recent[:] = 0
    recent[0] = np.uint64(1) << _32


@kernel
def orders(
    data: Any, offsets: Any, count: Any, wanted: Any, first_seq: Any, sides: Any, symbols: Any, out: Any, room: Any,
    odd: Any, counts: Any, found: Any,
) -> None:  # fmt: skip
    """Columns of `room` rows one behind the other in `out`, as `COLUMNS` has them.

    `found`: rows, odd records, whether a price is undefined, whether a name is missing (-1).
    """
    instruments, begins, ends, names, slots = symbols
    ts_event, ts_recv = out[: 8 * room].view(np.int64), out[8 * room : 16 * room].view(np.int64)
    seq, order_id = out[16 * room : 24 * room].view(np.uint64), out[24 * room : 32 * room].view(np.uint64)
    price, symbol = out[32 * room : 40 * room].view(np.int64), out[40 * room : 44 * room].view(np.int32)
    size, instrument_id = out[44 * room : 48 * room].view(np.uint32), out[48 * room : 52 * room].view(np.uint32)
    ts_in_delta, sequence = out[52 * room : 56 * room].view(np.int32), out[56 * room : 60 * room].view(np.uint32)
    publisher_id, msg_type = out[60 * room : 62 * room].view(np.uint16), out[62 * room : 63 * room]
    side, flags, channel_id = out[63 * room : 64 * room].view(np.int8), out[64 * room : 65 * room], out[65 * room :]
    row, i, total = _0, _0, np.uint64(count)
    wrong, priceless, nameless = _0, False, False
    recent = np.empty(_RECENT, np.uint64)
    _forget(recent)
    # what is in `recent` holds from `since` to `until`
    since, until = np.int64(_EARLIEST), np.int64(_LATEST)
    while i < total:
        at = np.int64(offsets[i])
        if i + _8 <= total and at + AHEAD <= len(data) and np.int64(offsets[i + _7]) == at + 7 * LENGTH:
            unusual = eight_orders(
                data, at, row, first_seq + i, since, until, seq, side,
                (ts_event, ts_recv, msg_type, order_id, price, size, flags, instrument_id, publisher_id, channel_id,
                 ts_in_delta, sequence),
            )  # fmt: skip
            others, found_names = unusual & np.uint64(255), _0
            for k in range(_8):
                instrument = np.uint64(instrument_id[row + k])
                entry = recent[_place(instrument)]
                others |= (entry >> _32) ^ instrument
                found_names |= entry
                symbol[row + k] = np.int32(np.uint32(entry))
            if not others:
                if np.int32(np.uint32(found_names)) < 0:
                    nameless = True
                if unusual != 0:
                    priceless = True
                row += _8
                i += _8
                continue
        last = min(total, i + _8)
        while i < last:
            at = np.int64(offsets[i])
            number = i
            i += _1
            if at == _NO_RECORD:
                continue
            kind = u8(data, at + 1)
            if not wanted[kind]:
                counts[kind] += 1
                continue
            event, recv = i64(data, at + 8), i64(data, at + 40)
            if event == -1:
                event = recv
            elif recv == -1:
                recv = event
            way = sides[u8(data, at + 39)]
            if event < 0 or recv < 0 or way == 2:
                odd[wrong] = number
                wrong += _1
                continue
            instrument = np.uint64(u32(data, at + 4))
            if recv < since or recv >= until:
                _forget(recent)
                since, until = np.int64(_EARLIEST), np.int64(_LATEST)
            entry = recent[_place(instrument)]
            if entry >> _32 != instrument:
                named, first, end = find_name(instrument, recv, instruments, begins, ends, names, slots)
                since, until = max(since, first), min(until, end)
                entry = (instrument << _32) | np.uint64(np.uint32(named))
                recent[_place(instrument)] = entry
            amount = i64(data, at + 24)
            ts_event[row], ts_recv[row], seq[row] = event, recv, first_seq + number
            symbol[row], side[row], price[row] = np.int32(np.uint32(entry)), way, amount
            msg_type[row], flags[row], channel_id[row] = u8(data, at + 38), u8(data, at + 36), u8(data, at + 37)
            order_id[row], size[row] = i64(data, at + 16), u32(data, at + 32)
            instrument_id[row], publisher_id[row] = instrument, u16(data, at + 2)
            ts_in_delta[row], sequence[row] = i32(data, at + 48), u32(data, at + 52)
            if amount == _NO_PRICE:
                priceless = True
            if symbol[row] < 0:
                nameless = True
            row += _1
    found[0], found[1], found[2], found[3] = row, wrong, priceless, nameless
