"""Eight order records to their columns at once.

An order record is seven words of 8 bytes. Eight records are loaded as rows of words and turned into columns by three rounds
of shuffles; numbers shorter than a word are cut out of it. It is written in vectors of LLVM, which become AVX-512, AVX2 or
whatever the machine has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["AHEAD", "FIELDS", "LENGTH", "eight_orders"]

#: Bytes of an order record, and of what `eight_orders` reads.
LENGTH = 56
AHEAD = 8 * LENGTH + 8

#: The columns that are copied as they are, in the order in which `eight_orders` takes them: word, and bits before it there.
FIELDS: dict[str, tuple[int, int]] = {
    "ts_event": (1, 0),
    "ts_recv": (5, 0),
    "msg_type": (4, 48),
    "order_id": (2, 0),
    "price": (3, 0),
    "size": (4, 0),
    "flags": (4, 32),
    "instrument_id": (0, 32),
    "publisher_id": (0, 16),
    "channel_id": (4, 40),
    "ts_in_delta": (6, 0),
    "sequence": (6, 32),
}
_SIDE = 56
_HEAD = 0xA00E

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def _vector(kind: Any) -> Any:
    return ir.VectorType(kind, 8)


def _const(kind: Any, values: Any) -> Any:
    return ir.Constant(_vector(kind), list(values))


def _all(kind: Any, value: int) -> Any:
    return _const(kind, [value] * 8)


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_vector(value.type), ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, _all(_I32, 0))


def _words(builder: Any, rows: Any) -> list[Any]:
    """Rows of eight words to vectors of the first words, the second ones and so on."""

    def pick(left: Any, right: Any, places: list[int]) -> Any:
        return builder.shuffle_vector(left, right, _const(_I32, places))

    words: list[Any] = [None] * 8
    for odd in (0, 1):
        places = [odd + 2 * i + 8 * right for i in range(4) for right in (0, 1)]
        pairs = [pick(rows[i], rows[i + 1], places) for i in (0, 2, 4, 6)]
        for half in (0, 2):
            lanes = [half, half + 1, half + 4, half + 5]
            places = lanes + [8 + lane for lane in lanes]
            low, high = pick(pairs[0], pairs[1], places), pick(pairs[2], pairs[3], places)
            words[odd + half] = pick(low, high, [0, 1, 4, 5, 8, 9, 12, 13])
            words[odd + half + 4] = pick(low, high, [2, 3, 6, 7, 10, 11, 14, 15])
    return words


def _eight_orders(
    typing: Any, data: Any, at: Any, row: Any, number: Any, since: Any, until: Any, seq: Any, side: Any, columns: Any
) -> Any:
    """``eight_orders(data, at, row, number, since, until, seq, side, columns)``: records at `at` to rows from `row`.

    `number` is the first one's `seq`, `columns` are those of `FIELDS`. Gives in the lowest byte a bit for each record that
    is not as most are: no order record, a letter that is no side, a time that is undefined or too great, or `ts_recv`
    outside ``since:until``; in the next byte one for each without a price. `AHEAD` bytes are read.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args

        def place(array: Any, value: Any, index: Any, kind: Any) -> Any:
            start = context.make_array(array)(context, builder, value).data
            return builder.bitcast(builder.gep(start, [index]), _vector(kind).as_pointer())

        def store(array: Any, value: Any, items: Any) -> None:
            builder.store(items, place(array, value, args[2], items.type.element), align=1)

        def cut(word: int, shift: int, bits: int) -> Any:
            items = builder.lshr(words[word], _all(_I64, shift)) if shift else words[word]
            return items if bits == 64 else builder.trunc(items, _vector(ir.IntType(bits)))

        starts = [builder.add(args[1], _I64(LENGTH * i)) for i in range(8)]
        words = _words(builder, [builder.load(place(kinds[0], args[0], start, _I64), align=1) for start in starts])
        for i, (word, shift) in enumerate(FIELDS.values()):
            array = kinds[8].types[i]
            store(array, builder.extract_value(args[8], i), cut(word, shift, array.dtype.bitwidth))
        store(kinds[6], args[6], builder.add(_spread(builder, args[3]), _const(_I64, range(8))))
        letter = cut(4, _SIDE, 8)
        ask, bid, none, nul = (builder.icmp_signed("==", letter, _all(_I8, code)) for code in b"ABN\0")
        store(kinds[7], args[7], builder.sub(builder.sext(ask, _vector(_I8)), builder.sext(bid, _vector(_I8))))
        usual = [
            builder.or_(builder.or_(ask, bid), builder.or_(none, nul)),
            builder.icmp_signed("==", cut(0, 0, 16), _all(_I16, _HEAD)),
            builder.icmp_signed(">=", words[1], _all(_I64, 0)),
            builder.icmp_signed(">=", words[5], _all(_I64, 0)),
            builder.icmp_signed(">=", words[5], _spread(builder, args[4])),
            builder.icmp_signed("<", words[5], _spread(builder, args[5])),
        ]
        every = usual[0]
        for condition in usual[1:]:
            every = builder.and_(every, condition)
        unusual = builder.zext(builder.not_(builder.bitcast(every, _I8)), _I64)
        priceless = builder.icmp_signed("==", words[3], _all(_I64, (1 << 63) - 1))
        return builder.or_(unusual, builder.shl(builder.zext(builder.bitcast(priceless, _I8), _I64), _I64(8)))

    places = (types.int64, types.uint64, types.uint64, types.int64, types.int64)
    return types.uint64(data, *places, seq, side, columns), generate


eight_orders: Any = intrinsic(_eight_orders)
