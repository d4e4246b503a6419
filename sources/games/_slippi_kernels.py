"""Compiled loops of Slippi replays: following the events with rollbacks resolved, and decoding resolved events."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel

__all__ = ["RING", "SLOTS", "STRIDE", "decode_input", "decode_state", "follow"]

#: Frames that may be open at a time, characters of a frame, and bytes kept of an event.
RING, SLOTS, STRIDE = 128, 8, 64
#: Frames by which a rollback goes back at most where the replay does not say which are final.
ROLLBACK = 7
#: Bytes that are given up at a time where no event can be found.
MOST_LOST = 65_536

# Places in the state.
AT, NEXT, NEWEST, STORED, FINAL, SUSPECT, SEQ, LOST, ENDED, ROWS, BADS, SUPERSEDED, LATE, MISSING = range(14)
LEAP, STAMP, GAPS, STATE = range(14, 18)
# What is followed: a whole file, one that is being written, or a connection.
FILE, TAIL, LIVE = range(3)
#: Frames by which a connection may jump ahead without a second event that says the same.
MOST_LEAP = 600
# Why a call returned.
MORE, FULL = 0, 1
# What is wrong with a bad record.
UNKNOWN, CUT, SHORT, PLAYER, JUMP = range(5)

_NO_SUSPECT = -(1 << 40)
_FRAME_START, _BOOKEND, _GAME_END, _SIZES, _GAME_START = 0x3A, 0x3C, 0x39, 0x35, 0x36


@kernel
def _int32(data: Any, at: Any) -> Any:
    value = (
        (np.int64(data[at]) << 24)
        | (np.int64(data[at + 1]) << 16)
        | (np.int64(data[at + 2]) << 8)
        | np.int64(data[at + 3])
    )
    return value - (np.int64(1) << 32) if value >= (np.int64(1) << 31) else value


@kernel
def _resume_at(data: Any, filled: Any, final: Any, sizes: Any, start: Any, stop: Any, newest: Any, ahead: Any) -> Any:
    """Where the next event that makes sense begins, in ``[start, stop)``; -1 there is none, -2 cannot be told yet."""
    for place in range(start, stop):
        if place >= filled:
            return -1 if final else -2
        code = data[place]
        if (code < 0x37 or code > 0x3C or code == 0x39) or sizes[code] < 4:
            continue
        if place + 5 > filled:
            if final:
                continue
            return -2
        frame = _int32(data, place + 1)
        if frame < newest - RING or frame > newest + ahead:
            continue
        after = place + 1 + sizes[code]
        if after > filled or (after == filled and not final):
            if final:
                continue
            return -2
        if after == filled or sizes[data[after]] >= 0:
            return place
    return -1


@kernel
def _is_opening(data: Any, filled: Any, at: Any) -> Any:
    """1 if a table of sizes with the start of a game behind it begins at `at`, 0 if not, -1 if that cannot be told yet."""
    if at + 2 > filled:
        return -1
    size = np.int64(data[at + 1])
    if size % 3 != 1 or size < 4:
        return 0
    if at + 1 + size >= filled:
        return -1
    return 1 if data[at + 1 + size] == _GAME_START else 0


@kernel
def follow(
    data: Any, filled: Any, final: Any, sizes: Any, wanted: Any, ring: Any, masks: Any, rows: Any, seqs: Any, bad: Any,
    counts: Any, state: Any, mode: Any, ring_stamps: Any, stamps: Any, gaps: Any,
) -> Any:  # fmt: skip
    """Follow the events in ``data[:filled]`` from ``state[AT]``; resolved events of code `wanted` go to `rows`, in order of
    frame, player and follower, with their numbers in `seqs`; what is wrong goes to `bad` (kind, at, size, number).

    MORE: all that can be told is told; FULL: call again with fresh `rows` and `bad`. `final`: no more bytes follow. Which
    rows come out, and their numbers, do not depend on how the events are cut. `stamps` get ``state[STAMP]`` as it was when
    the event was whole. With `mode` LIVE frames that were jumped over go to `gaps` (first, last), and the next game ends
    this one.
    """
    tells = sizes[_BOOKEND] >= 8
    most_rows, most_bad = len(rows), len(bad)
    while True:
        while state[NEXT] <= state[FINAL]:
            if state[NEXT] > state[STORED]:
                state[MISSING] += state[FINAL] - state[NEXT] + 1
                state[NEXT] = state[FINAL] + 1
                break
            if state[ROWS] + SLOTS > most_rows:
                return FULL
            slot_of = state[NEXT] & (RING - 1)
            mask = masks[slot_of]
            if mask == 0:
                state[MISSING] += 1
            for slot in range(SLOTS):
                if mask & (1 << slot):
                    row = state[ROWS]
                    target, source = rows[row], ring[slot_of, slot]
                    for place in range(STRIDE):
                        target[place] = source[place]
                    seqs[row] = state[SEQ]
                    stamps[row] = ring_stamps[slot_of, slot]
                    state[SEQ] += 1
                    state[ROWS] = row + 1
            masks[slot_of] = 0
            state[NEXT] += 1
        if state[BADS] + 2 > most_bad or state[GAPS] + 1 > len(gaps):
            return FULL
        if mode != FILE and state[ENDED]:
            return MORE
        at = state[AT]
        if at >= filled:
            return MORE
        code = data[at]
        if mode == LIVE and code == _SIZES and not state[LOST]:
            found = _is_opening(data, filled, at)
            if found < 0 and not final:
                return MORE
            if found > 0:
                state[ENDED] = 1
                state[FINAL] = max(state[FINAL], state[NEWEST])
                continue
        if sizes[code] < 0 or state[LOST]:
            begin = at if state[LOST] else at + 1
            ahead = np.int64(1 << 24) if state[LEAP] else np.int64(RING)
            found = _resume_at(data, filled, final, sizes, begin, at + MOST_LOST, state[NEWEST], ahead)
            if found == -2:
                return MORE
            end = found if found >= 0 else min(at + MOST_LOST, filled)
            state[LOST] = found < 0
            if end > at:
                _put(bad, state, UNKNOWN, at, end - at)
            state[AT] = end
            continue
        size = np.int64(sizes[code]) + 1
        if at + size > filled:
            if not final:
                return MORE
            _put(bad, state, CUT, at, filled - at)
            state[AT] = filled
            continue
        if code == wanted:
            if size < 7:
                _put(bad, state, SHORT, at, size)
            else:
                frame = _int32(data, at + 1)
                if data[at + 5] > 3:
                    _put(bad, state, PLAYER, at, size)
                elif frame < -123 or (frame < state[NEWEST] - RING and not state[LEAP]):
                    _put(bad, state, JUMP, at, size)
                elif frame < state[NEXT]:
                    state[LATE] += 1
                elif frame > state[NEWEST]:
                    near = frame == state[SUSPECT] or frame == state[SUSPECT] + 1 or state[LEAP]
                    near = near or (mode == LIVE and frame <= state[NEWEST] + MOST_LEAP)
                    if frame != state[NEWEST] + 1 and not near:
                        state[SUSPECT] = frame
                        _put(bad, state, JUMP, at, size)
                    else:
                        if mode == LIVE and frame > state[NEWEST] + 1:
                            gaps[state[GAPS], 0] = state[NEWEST] + 1
                            gaps[state[GAPS], 1] = frame - 1
                            state[GAPS] += 1
                        state[NEWEST] = frame
                        state[LEAP] = 0
                        state[SUSPECT] = _NO_SUSPECT
                        behind = RING // 2 if tells else ROLLBACK
                        if frame - 1 - behind > state[FINAL]:
                            state[FINAL] = frame - 1 - behind
                        continue  # what has become final leaves first, then this event comes again
                else:
                    state[SUSPECT] = _NO_SUSPECT
                    slot_of = frame & (RING - 1)
                    character = 2 * np.int64(data[at + 5]) + (1 if data[at + 6] else 0)
                    if masks[slot_of] & (1 << character):
                        state[SUPERSEDED] += 1
                    masks[slot_of] |= 1 << character
                    ring_stamps[slot_of, character] = state[STAMP]
                    target, source = ring[slot_of, character], data[at : at + size]
                    kept = size if size < STRIDE else STRIDE
                    for place in range(kept):
                        target[place] = source[place]
                    if frame > state[STORED]:
                        state[STORED] = frame
        elif code == _FRAME_START and size >= 5:
            frame = _int32(data, at + 1)
            if state[NEXT] <= frame <= state[STORED]:  # the frame is played again: none of its characters stays
                mask = masks[frame & (RING - 1)]
                for slot in range(SLOTS):
                    state[SUPERSEDED] += (mask >> slot) & 1
                masks[frame & (RING - 1)] = 0
        elif code == _BOOKEND and tells:
            frame = _int32(data, at + 1)
            done = min(_int32(data, at + 5), frame)
            if done <= state[NEWEST] and done > state[FINAL]:
                state[FINAL] = done
        elif code == _GAME_END:
            state[ENDED] = 1
            state[FINAL] = max(state[FINAL], state[NEWEST])
        counts[code] += 1
        state[AT] = at + size


@kernel
def _put(bad: Any, state: Any, kind: Any, at: Any, size: Any) -> None:
    row = state[BADS]
    bad[row, 0] = kind
    bad[row, 1] = at
    bad[row, 2] = size
    bad[row, 3] = state[SEQ]
    state[SEQ] += 1
    state[BADS] = row + 1


@kernel
def _word(event: Any, at: Any) -> Any:
    return np.uint32(
        (np.uint32(event[at]) << np.uint32(24))
        | (np.uint32(event[at + 1]) << np.uint32(16))
        | (np.uint32(event[at + 2]) << np.uint32(8))
        | np.uint32(event[at + 3])
    )


@kernel
def _half(event: Any, at: Any) -> Any:
    return np.uint16((np.uint16(event[at]) << np.uint16(8)) | np.uint16(event[at + 1]))


@kernel
def decode_input(
    rows: Any, start_ns: Any, frame_ns: Any, first: Any, time: Any, frame: Any, player: Any, follower: Any, sticks: Any,
    buttons: Any, physical: Any, action: Any, seed: Any,
) -> None:  # fmt: skip
    """Resolved pre-frame updates to columns; `sticks` are six float columns as uint32."""
    sx, sy, cx, cy, tl, tr = sticks
    for row in range(len(rows)):
        event = rows[row]
        number = _int32(event, 1)
        time[row] = start_ns + (number - first) * frame_ns
        frame[row] = number
        player[row] = event[5]
        follower[row] = event[6] != 0
        seed[row] = _word(event, 0x07)
        action[row] = _half(event, 0x0B)
        sx[row] = _word(event, 0x19)
        sy[row] = _word(event, 0x1D)
        cx[row] = _word(event, 0x21)
        cy[row] = _word(event, 0x25)
        buttons[row] = _word(event, 0x2D)
        physical[row] = _half(event, 0x31)
        tl[row] = _word(event, 0x33)
        tr[row] = _word(event, 0x37)


@kernel
def decode_state(
    rows: Any, start_ns: Any, frame_ns: Any, first: Any, time: Any, frame: Any, player: Any, follower: Any, floats: Any,
    character: Any, action: Any, facing: Any, stocks: Any, airborne: Any,
) -> None:  # fmt: skip
    """Resolved post-frame updates to columns; `floats` are x, y, percent, shield as uint32."""
    x, y, percent, shield = floats
    for row in range(len(rows)):
        event = rows[row]
        number = _int32(event, 1)
        time[row] = start_ns + (number - first) * frame_ns
        frame[row] = number
        player[row] = event[5]
        follower[row] = event[6] != 0
        character[row] = event[0x07]
        action[row] = _half(event, 0x08)
        x[row] = _word(event, 0x0A)
        y[row] = _word(event, 0x0E)
        bits = _word(event, 0x12)
        size = bits & np.uint32(0x7FFFFFFF)
        if size == 0 or size > np.uint32(0x7F800000):  # zero, or no number
            facing[row] = 0
        else:
            facing[row] = -1 if bits >> np.uint32(31) else 1
        percent[row] = _word(event, 0x16)
        shield[row] = _word(event, 0x1A)
        stocks[row] = event[0x21]
        airborne[row] = event[0x2F] != 0
