"""ITCH at native speed: where messages begin, and from bytes to columns.

Framing (`frame`) is one dependent chain of loads, a few ns a message, and leaves the offset of every message, so that
decoding has no chain to wait for. Decoding (`decode`) looks up each type's field offsets and masks in a table instead of
branching on the type: order messages come in no pattern that a branch predictor could learn, and a wrong guess costs more
than the loads that are masked away. The caller leaves `PAD` zero bytes behind the data, so these loads stay inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...pipeline.jit import kernel

__all__ = ["CUT", "FULL", "LOOKAHEAD", "LOST", "MORE", "PAD", "RENAMED", "WRONG_LENGTH", "decode", "frame", "survey"]

#: Zero bytes behind the data; offset of a message that is not to be decoded.
PAD = 64
#: Bytes that decide where messages go on after damage: more than any length prefix can say.
LOOKAHEAD = 1 << 17

# Why `frame` stopped.
MORE, FULL, DIRECTORY = 0, 1, 2
# What is wrong with a bad record.
WRONG_LENGTH, LOST, CUT, RENAMED = 1, 2, 3, 4
# Indices of `frame`'s in-out counters.
POSITION, MESSAGES, BAD, HIGHEST, NAMED_UNTIL, VERSION = 0, 1, 2, 3, 4, 5

_DIRECTORY = 82  # R


def _big_endian(bits: int) -> Any:
    """``load(data, offset)``: an unaligned big-endian unsigned integer, one load and one byte swap."""
    result: Any = {16: types.uint16, 32: types.uint32, 64: types.uint64}[bits]

    def load(typing: Any, data: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(bits).as_pointer())
            return builder.bswap(builder.load(pointer, align=1))

        return result(data, offset), generate

    return intrinsic(load)


_u16, _u32, _u64 = _big_endian(16), _big_endian(32), _big_endian(64)


@kernel
def _follows(data: Any, at: Any, limit: Any, at_end: Any, prefixed: Any, lengths: Any, need: Any) -> Any:
    """Whether `need` sound messages follow from `at`, or fewer up to `limit`. Unknown types are stepped over."""
    seen = 0
    steps = 0
    while seen < need:
        if at >= limit:
            return seen > 0 or (at == limit and at_end)
        if at + 3 > limit:
            return seen > 0 or (at_end and at + 2 == limit and _u16(data, at) == 0)
        length = np.int64(_u16(data, at))
        kind = data[at + 2]
        want = lengths[kind]
        if want != 0 and length == (want if prefixed else 0):
            seen += 1
            at += 2 + want
            continue
        steps += 1
        if steps > 16 or not prefixed:
            return False
        letter = (48 <= kind <= 57) or (65 <= kind <= 90) or (97 <= kind <= 122)
        if length == 0:
            at += 2
        elif want == 0 and letter and 11 <= length <= 1024:
            at += 2 + length
        else:
            return False
    return True


@kernel
def _judge(data: Any, at: Any, limit: Any, at_end: Any, prefixed: Any, lengths: Any) -> Any:
    """What to do with an unsound message at `at`: (0: unknown type, or what is wrong; bytes it takes, prefix included)."""
    length = np.int64(_u16(data, at))
    want = lengths[data[at + 2]]
    if prefixed:
        if want == 0:
            if _follows(data, at + 2 + length, limit, at_end, prefixed, lengths, 1):
                return 0, 2 + length
        elif _follows(data, at + 2 + length, limit, at_end, prefixed, lengths, 2):
            return WRONG_LENGTH, 2 + length
        elif _follows(data, at + 2 + want, limit, at_end, prefixed, lengths, 2):
            return WRONG_LENGTH, 2 + want
    for there in range(at + 1, limit - 2):
        kind_length = lengths[data[there + 2]]
        if (
            kind_length != 0
            and np.int64(_u16(data, there)) == (kind_length if prefixed else 0)
            and _follows(data, there, limit, at_end, prefixed, lengths, 3)
        ):
            return LOST, there - at
    if at_end:
        return LOST, limit - at
    return LOST, max(1, limit - at - 256)


@kernel
def frame(
    data: Any,
    filled: Any,
    until: Any,
    final: Any,
    prefixed: Any,
    lengths: Any,
    offsets: Any,
    bad: Any,
    names: Any,
    named: Any,
    used: Any,
    mark: Any,
    state: Any,
) -> Any:
    """Find messages in ``data[state[POSITION]:filled]`` until `offsets` is full, `until` is reached, or data runs out.

    `offsets` gets the start of every message (of its type byte), or the start of the padding for a bad one; `bad` rows of
    (what, offset, length, message number). Stock directory messages go to `names` and `named`; a block ends before one
    that names a locate which the block has used, so that all its rows have the same directory. `used` holds, per locate,
    the last block (`mark`) that used it; it is kept only for blocks that need it. Returns MORE, FULL or DIRECTORY.
    """
    at = state[POSITION]
    highest = state[HIGHEST]
    nothing = data.size - PAD
    number = 0
    marked = 0
    status = FULL
    while number < offsets.size:
        if at >= until or at + 3 > filled:
            status = MORE
            break
        length = np.int64(_u16(data, at))
        kind = data[at + 2]
        want = lengths[kind]
        sound = want != 0 and length == (want if prefixed else 0)
        if sound and at + 2 + want <= filled:
            locate = np.int64(_u16(data, at + 3))
            if kind == _DIRECTORY:
                same = True
                for i in range(8):
                    same = same and names[locate, i] == data[at + 13 + i]
                if named[locate] == 0:
                    while marked < number:
                        before = np.int64(offsets[marked])
                        if before != nothing:
                            used[np.int64(_u16(data, before + 1))] = mark
                        marked += 1
                    if used[locate] == mark:
                        status = DIRECTORY
                        break
                    for i in range(8):
                        names[locate, i] = data[at + 13 + i]
                    named[locate] = 1
                    state[NAMED_UNTIL] = at + 2 + want
                    state[VERSION] += 1
                elif not same:
                    if state[BAD] >= len(bad):
                        break
                    bad[state[BAD], 0] = RENAMED
                    bad[state[BAD], 1] = at
                    bad[state[BAD], 2] = 2 + want
                    bad[state[BAD], 3] = number
                    state[BAD] += 1
                    offsets[number] = nothing
                    number += 1
                    at += 2 + want
                    continue
            offsets[number] = at + 2
            number += 1
            highest = max(highest, locate)
            at += 2 + (length if prefixed else want)
            continue
        if prefixed and length == 0:
            at += 2
            continue
        if sound and not final:
            status = MORE
            break
        what = CUT
        size = filled - at
        if not sound:
            if not final and filled - at < LOOKAHEAD:
                status = MORE
                break
            limit = min(filled, at + LOOKAHEAD)
            what, size = _judge(data, at, limit, final and limit == filled, prefixed, lengths)
            if what == 0:
                offsets[number] = at + 2
                number += 1
                at += size
                continue
        if state[BAD] >= len(bad):
            break
        bad[state[BAD], 0] = what
        bad[state[BAD], 1] = at
        bad[state[BAD], 2] = size
        bad[state[BAD], 3] = number
        state[BAD] += 1
        offsets[number] = nothing
        number += 1
        at += size
    state[POSITION] = at
    state[MESSAGES] = number
    state[HIGHEST] = highest
    return status


@kernel
def decode(
    data: Any,
    offsets: Any,
    count: Any,
    layout: Any,
    midnight: Any,
    latest: Any,
    first_seq: Any,
    ts_event: Any,
    seq: Any,
    locate: Any,
    symbol: Any,
    msg_type: Any,
    side: Any,
    order_id: Any,
    new_order_id: Any,
    price: Any,
    size: Any,
    match_id: Any,
    flags: Any,
    counts: Any,
    bad: Any,
) -> Any:
    """Decode `count` messages into the columns, which need room for one row more. Returns (rows, bad messages).

    Every message is written; the row then moves on only if its type belongs to ``market.l3``. `counts` adds up messages
    by type. `bad` gets the numbers of messages whose side, time or size no such message can have.
    """
    row = np.uint64(0)
    wrong = 0
    for number in range(count):
        at = np.int64(offsets[number])
        kind = data[at]
        field = layout[kind]
        counts[kind] += 1
        since_midnight = np.int64(_u64(data, at + 3) & np.uint64(0xFFFFFFFFFFFF))
        ts_event[row] = midnight + since_midnight
        seq[row] = first_seq + number
        where = _u16(data, at + 1)
        locate[row] = where
        symbol[row] = where
        msg_type[row] = kind
        letter = data[at + field[2]]
        way = (np.int64(letter == 66) - np.int64(letter == 83)) & field[3]
        side[row] = way
        order_id[row] = _u64(data, at + 11) & np.uint64(field[1])
        new_order_id[row] = _u64(data, at + field[10]) & np.uint64(field[11])
        price[row] = (np.int64(_u32(data, at + field[6])) & field[7]) * 100_000
        size[row] = np.int64(_u32(data, at + field[4])) & field[5]
        match_id[row] = _u64(data, at + field[8]) & np.uint64(field[9])
        flags[row] = field[12] | (np.int64(data[at + 31] == 89) & field[13])
        keep = field[0]
        odd = np.int64(since_midnight > latest) | (field[15] & np.int64(way == 0))
        odd |= np.int64((np.int64(_u32(data, at + 11)) & field[14]) != 0)
        if odd & keep:
            bad[wrong] = number
            wrong += 1
            keep = 0
        row += np.uint64(keep)
    return np.int64(row), wrong


@kernel
def survey(data: Any, offsets: Any, count: Any, lengths: Any, counts: Any, times: Any) -> None:
    """Count messages by type and widen `times` (least, greatest ns since midnight) by those of known types."""
    nothing = data.size - PAD
    for number in range(count):
        at = np.int64(offsets[number])
        if at == nothing:
            continue
        kind = data[at]
        counts[kind] += 1
        if lengths[kind] != 0:
            since_midnight = np.int64(_u64(data, at + 3) & np.uint64(0xFFFFFFFFFFFF))
            times[0] = min(times[0], since_midnight)
            times[1] = max(times[1], since_midnight)
