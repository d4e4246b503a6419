"""The order of numbered packets, at native speed: see `MoldSequence`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel

__all__ = ["DELIVER", "FIELDS", "LOST", "RANGES", "REJECT", "advance", "settle"]

# Kinds of runs.
DELIVER, LOST, REJECT = 0, 1, 2
# What became of a packet when it came.
NEW, DUPLICATE, HELD, NOTHING, IMPLAUSIBLE, LATE, END = 0, 1, 2, 3, 4, 5, 6
# Columns of a session's state.
EXPECTED, HEAD, WAITING, OLDEST, OLDEST_TIME, ENDED, DUPLICATES, LATES, LOSSES, GAPS, FILLED, KEPT = range(12)
FIELDS = 12
#: Lost ranges of a session that are remembered, to tell what comes too late from what comes twice.
RANGES = 256
_NEVER = 1 << 62


@kernel
def _emit(runs: Any, total: Any, kind: Any, session: Any, packet: Any, skip: Any, take: Any, seq: Any) -> None:
    row = runs[total[0]]
    row[0], row[1], row[2], row[3], row[4], row[5] = kind, session, packet, skip, take, seq
    total[0] += 1


@kernel
def _behind(state: Any, ranges: Any, first: Any, end: Any) -> Any:
    """How many of the messages ``first:end``, all behind what is expected, were given up as lost."""
    late = 0
    for r in range(state[KEPT] - 1, -1, -1):
        if ranges[r, 1] <= first:
            break
        late += max(0, min(end, ranges[r, 1]) - max(first, ranges[r, 0]))
    return late


@kernel
def _count_behind(state: Any, ranges: Any, first: Any, end: Any) -> Any:
    late = _behind(state, ranges, first, end)
    state[LATES] += late
    state[DUPLICATES] += end - first - late
    return late


@kernel
def _drain(session: Any, state: Any, held: Any, ranges: Any, runs: Any, total: Any) -> None:
    """Deliver what waits and is next."""
    while state[WAITING] > 0:
        first = held[state[HEAD]]
        if first[0] > state[EXPECTED]:
            break
        end = first[0] + first[1]
        if end > state[EXPECTED]:
            skip = state[EXPECTED] - first[0]
            if skip:
                _count_behind(state, ranges, first[0], state[EXPECTED])
            _emit(runs, total, DELIVER, session, first[2], skip, end - state[EXPECTED], state[EXPECTED])
            state[EXPECTED] = end
        elif first[1]:
            _count_behind(state, ranges, first[0], end)
        state[HEAD] += 1
        state[WAITING] -= 1
    _age(state, held)


@kernel
def _age(state: Any, held: Any) -> None:
    """When the gap in front of what waits was noticed: with the first of all that wait."""
    state[OLDEST] = _NEVER
    state[OLDEST_TIME] = _NEVER
    for k in range(state[HEAD], state[HEAD] + state[WAITING]):
        state[OLDEST] = min(state[OLDEST], held[k, 3])
        state[OLDEST_TIME] = min(state[OLDEST_TIME], held[k, 4])


@kernel
def _give_up(session: Any, state: Any, held: Any, ranges: Any, jump: Any, runs: Any, total: Any) -> None:
    """The messages in front of what waits are lost; unless it is far off and the feed has gone on without it."""
    first = state[EXPECTED]
    end = held[state[HEAD], 0]
    if end - first > jump and held[state[HEAD], 5] < first:
        _emit(runs, total, REJECT, session, held[state[HEAD], 2], 0, 0, end)
        state[HEAD] += 1
        state[WAITING] -= 1
        _age(state, held)
        return
    _emit(runs, total, LOST, session, held[state[HEAD], 2], 0, end - first, first)
    state[LOSSES] += end - first
    if state[KEPT] == RANGES:
        for r in range(RANGES - 1):
            ranges[r, 0], ranges[r, 1] = ranges[r + 1, 0], ranges[r + 1, 1]
        state[KEPT] -= 1
    ranges[state[KEPT], 0], ranges[state[KEPT], 1] = first, end
    state[KEPT] += 1
    state[EXPECTED] = end
    _drain(session, state, held, ranges, runs, total)


@kernel
def _hold(state: Any, held: Any, seq: Any, count: Any, packet: Any, arrival: Any, time: Any) -> None:
    """Keep a packet in its place among those that wait; of equal numbers the first to come stays in front."""
    if state[HEAD] + state[WAITING] == len(held):
        for k in range(state[WAITING]):
            held[k] = held[state[HEAD] + k]
        state[HEAD] = 0
    k = state[HEAD] + state[WAITING]
    while k > state[HEAD] and held[k - 1, 0] > seq:
        held[k] = held[k - 1]
        k -= 1
    held[k, 0], held[k, 1], held[k, 2], held[k, 3], held[k, 4] = seq, count, packet, arrival, time
    held[k, 5] = state[EXPECTED]
    state[WAITING] += 1
    state[OLDEST] = min(state[OLDEST], arrival)
    state[OLDEST_TIME] = min(state[OLDEST_TIME], time)


@kernel
def settle(
    states: Any,
    held: Any,
    ranges: Any,
    arrivals: Any,
    window: Any,
    time: Any,
    window_ns: Any,
    jump: Any,
    runs: Any,
    total: Any,
) -> None:
    """Give up gaps that were noticed `window` packets or `window_ns` ago (-1: no limit), session by session."""
    room = held.shape[1]
    for session in range(len(states)):
        state = states[session]
        while state[WAITING] > 0 and (
            arrivals - state[OLDEST] >= window
            or (window_ns >= 0 and time - state[OLDEST_TIME] >= window_ns)
            or state[WAITING] >= room
        ):
            _give_up(session, state, held[session], ranges[session], jump, runs, total)


@kernel
def advance(
    sessions: Any,
    seqs: Any,
    counts: Any,
    times: Any,
    first_packet: Any,
    states: Any,
    held: Any,
    ranges: Any,
    window: Any,
    window_ns: Any,
    jump: Any,
    verdicts: Any,
    runs: Any,
    total: Any,
) -> None:
    """Take packets in the order of arrival; `runs` gets (kind, session, packet, skip, take, sequence number)."""
    room = held.shape[1]
    oldest: Any = np.int64(_NEVER)
    oldest_time: Any = np.int64(_NEVER)
    for s in range(len(states)):
        oldest = min(oldest, states[s, OLDEST])
        oldest_time = min(oldest_time, states[s, OLDEST_TIME])
    for i in range(len(seqs)):
        session, seq, time = sessions[i], seqs[i], times[i]
        count: Any = np.int64(counts[i])
        packet = first_packet + i
        if packet - oldest >= window or (window_ns >= 0 and time - oldest_time >= window_ns):
            settle(states, held, ranges, packet, window, time, window_ns, jump, runs, total)
            oldest = np.int64(_NEVER)
            oldest_time = np.int64(_NEVER)
            for s in range(len(states)):
                oldest = min(oldest, states[s, OLDEST])
                oldest_time = min(oldest_time, states[s, OLDEST_TIME])
        state = states[session]
        ends = count == 0xFFFF
        if ends:
            count = 0
        if seq < 0 or seq >= _NEVER:
            verdicts[i] = IMPLAUSIBLE
            continue
        if state[EXPECTED] < 0:
            state[EXPECTED] = seq
        ahead = seq - state[EXPECTED]
        if ahead < -jump:
            verdicts[i] = IMPLAUSIBLE
            continue
        if ends:
            state[ENDED] = 1
        if ahead > 0:
            if state[WAITING] == 0:
                state[GAPS] += 1
            _hold(state, held[session], seq, count, packet, packet, time)
            verdicts[i] = HELD
            if state[WAITING] >= room:
                _give_up(session, state, held[session], ranges[session], jump, runs, total)
            oldest = min(oldest, state[OLDEST])
            oldest_time = min(oldest_time, state[OLDEST_TIME])
            continue
        end = seq + count
        if count == 0:
            verdicts[i] = END if ends else NOTHING
            continue
        if end <= state[EXPECTED]:
            late = _count_behind(state, ranges[session], seq, end)
            verdicts[i] = LATE if late else DUPLICATE
            continue
        if ahead < 0:
            _count_behind(state, ranges[session], seq, state[EXPECTED])
        _emit(runs, total, DELIVER, session, packet, -ahead, end - state[EXPECTED], state[EXPECTED])
        state[EXPECTED] = end
        verdicts[i] = NEW
        if state[WAITING] > 0:
            before = state[WAITING]
            _drain(session, state, held[session], ranges[session], runs, total)
            if state[WAITING] < before:
                state[FILLED] += 1
