"""A JSON document's arrays at one path, an element a line: a scanner that follows depth and keys and copies elements."""

from __future__ import annotations

from typing import Any

from ...pipeline.jit import kernel

__all__ = ["DEPTH", "MOST_KEY", "split_elements"]

DEPTH, MOST_KEY = 256, 128
# Places in the state.
IN, OUT, MODE, LEVEL, STRING, ESCAPE, KEYING, EXPECT, PENDING, KEY, INNER, FOUND, LINE, STATE = range(14)
# What `MODE` says.
SEEK, ELEMENTS, DONE, TRAILING, DEEP = range(5)


@kernel
def _is_part(key: Any, size: Any, parts: Any, sizes: Any, number: Any) -> Any:
    if size != sizes[number]:
        return False
    same = True
    for place in range(size):
        same = same and key[place] == parts[number, place]
    return same


@kernel
def split_elements(
    data: Any, filled: Any, out: Any, room: Any, state: Any, kinds: Any, matches: Any, key: Any, parts: Any, sizes: Any
) -> None:
    """Go on at ``state[IN]`` until `data` is used up, `out` is full, or the document has ended.

    `kinds` and `matches` are the open containers: 1 object, 2 array, and how many parts of the path lead there (-1: none).
    """
    count = len(sizes)
    while state[IN] < filled and state[OUT] < room and state[MODE] < TRAILING:
        byte = data[state[IN]]
        mode = state[MODE]
        if mode == DONE:
            if byte != 32 and byte != 9 and byte != 10 and byte != 13:
                state[MODE] = TRAILING
                return
            state[IN] += 1
            continue
        state[IN] += 1
        if mode == ELEMENTS:
            if state[STRING]:
                if state[ESCAPE]:
                    state[ESCAPE] = 0
                elif byte == 92:
                    state[ESCAPE] = 1
                elif byte == 34:
                    state[STRING] = 0
            elif byte == 34:
                state[STRING] = 1
            elif byte == 123 or byte == 91:
                state[INNER] += 1
            elif byte == 125 or byte == 93:
                if state[INNER] == 0:
                    out[state[OUT]] = 10
                    state[OUT] += 1
                    state[LINE] = 0
                    state[MODE] = SEEK
                    state[LEVEL] -= 1
                    state[PENDING] = -1
                    if state[LEVEL] == 0:
                        state[MODE] = DONE
                    continue
                state[INNER] -= 1
            elif byte == 44 and state[INNER] == 0:
                out[state[OUT]] = 10
                state[OUT] += 1
                state[LINE] = 0
                continue
            if byte == 10 or byte == 13:
                if not state[LINE]:
                    continue
                byte = 32
            out[state[OUT]] = byte
            state[OUT] += 1
            state[LINE] = 1
            continue
        level = state[LEVEL]
        if state[STRING]:
            if state[ESCAPE]:
                state[ESCAPE] = 0
            elif byte == 92:
                state[ESCAPE] = 1
            elif byte == 34:
                state[STRING] = 0
                state[KEYING] = 0
                continue
            if state[KEYING]:
                if state[KEY] < MOST_KEY:
                    key[state[KEY]] = byte
                state[KEY] += 1
        elif byte == 34:
            state[STRING] = 1
            if level > 0 and kinds[level] == 1 and state[EXPECT]:
                state[KEYING] = 1
                state[KEY] = 0
        elif byte == 58:
            state[EXPECT] = 0
            matched = matches[level] if level > 0 else -1
            state[PENDING] = -1
            if 0 <= matched < count and _is_part(key, state[KEY], parts, sizes, matched):
                state[PENDING] = matched + 1
        elif byte == 123 or byte == 91:
            if level == 0:
                matched = 0
            elif kinds[level] == 2:
                matched = matches[level]
            else:
                matched = state[PENDING]
            if level + 1 >= DEPTH:
                state[MODE] = DEEP
                return
            state[LEVEL] = level + 1
            kinds[level + 1] = 1 if byte == 123 else 2
            matches[level + 1] = matched
            state[EXPECT] = 1 if byte == 123 else 0
            state[PENDING] = -1
            if byte == 91 and matched == count:
                state[MODE] = ELEMENTS
                state[INNER] = 0
                state[LINE] = 0
                state[FOUND] += 1
        elif byte == 125 or byte == 93:
            state[LEVEL] = max(0, level - 1)
            state[PENDING] = -1
            state[EXPECT] = 0
            if state[LEVEL] == 0:
                state[MODE] = DONE
        elif byte == 44:
            state[EXPECT] = 1 if level > 0 and kinds[level] == 1 else 0
            state[PENDING] = -1
