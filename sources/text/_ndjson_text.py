"""Strings, names and times inside a JSON line: scanning, hashing, comparing, copying, ISO 8601."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._ndjson_simd import (
    load8,
    load64,
    load_i32,
    load_i64,
    store32,
    store64,
    store_move32,
    string_stops,
    trailing_zeros,
)

__all__ = [
    "FULL",
    "GROW",
    "TABLE",
    "copy_text",
    "find_text",
    "gather",
    "hash_text",
    "intern",
    "read_iso",
    "same_text",
    "skip_string",
    "string_end",
]

#: What describes a dictionary, int64 each: addresses and mask of its slots, of the place and size of each value, then how
#: many values there are, how many the index type can name, and how many there is room for.
TABLE = ("slots", "mask", "places", "sizes", "count", "limit", "room")
#: `intern` could not: the table must grow, or the index type has no code left.
GROW, FULL = -1, -2

_U = np.uint64
_MASK = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)
_FACTOR = _U(0x9E3779B97F4A7C15)


@kernel
def string_end(at: Any, limit: Any) -> Any:
    """The address of the first byte from `at` on that is not plain string text."""
    stops = string_stops(at, limit)
    while stops == 0:
        at += 32
        stops = string_stops(at, limit)
    return at + trailing_zeros(stops)


@kernel
def _is_hex(byte: Any) -> Any:
    return (byte >= 48 and byte <= 57) or (byte >= 65 and byte <= 70) or (byte >= 97 and byte <= 102)


@kernel
def skip_string(at: Any, limit: Any) -> Any:
    """The closing quote of a string whose text starts at `at`, with its escapes checked; 0 for the slow path."""
    while True:
        at = string_end(at, limit)
        byte = load8(at)
        if byte == 34:
            return at
        if byte != 92:
            return 0
        byte = load8(at + 1)
        if byte == 117:  # "u"
            for digit in range(2, 6):
                if not _is_hex(load8(at + digit)):
                    return 0
            first = load8(at + 2) | 32
            second = load8(at + 3) | 32
            if first == 100 and (second == 56 or second == 57 or second >= 97):  # surrogates, D8 to DF
                return 0
            at += 6
        elif byte in (34, 92, 47, 98, 102, 110, 114, 116):
            at += 2
        else:
            return 0


@kernel
def hash_text(at: Any, size: Any) -> Any:
    """A 64-bit hash of `size` bytes; the same text gives the same hash on every run."""
    value = _U(size) * _FACTOR
    while size >= 8:
        value = (value ^ load64(at)) * _FACTOR
        value ^= value >> _U(32)
        at += 8
        size -= 8
    value = (value ^ (load64(at) & _MASK[size])) * _FACTOR
    return value ^ (value >> _U(29))


@kernel
def same_text(one: Any, other: Any, size: Any) -> Any:
    """Whether `size` bytes at two addresses agree."""
    while size > 8:
        if load64(one) != load64(other):
            return False
        one += 8
        other += 8
        size -= 8
    return (load64(one) ^ load64(other)) & _MASK[size] == _U(0)


@kernel
def copy_text(target: Any, source: Any, size: Any) -> Any:
    """Copy `size` bytes; up to 31 more are written behind them."""
    done = np.int64(0)
    while done < size:
        store_move32(target + done, source + done)
        done += 32


@kernel
def find_text(at: Any, size: Any, slots: Any, mask: Any, places: Any, sizes: Any) -> Any:
    """``(number, slot)`` of a text in an open-addressed table; number -1 and the slot to use if it is not there."""
    slot = np.int64(hash_text(at, size) & _U(mask))
    number = load_i32(slots + slot * 4)
    while number >= 0:
        if load_i32(sizes + number * 4) == size and same_text(at, load_i64(places + number * 8), size):
            break
        slot = (slot + 1) & mask
        number = load_i32(slots + slot * 4)
    return number, slot


@kernel
def intern(at: Any, size: Any, table: Any) -> Any:
    """The code of a text in the dictionary whose `TABLE` record is at an address; GROW or FULL if it takes no more."""
    slots, places, sizes = load_i64(table), load_i64(table + 16), load_i64(table + 24)
    code, slot = find_text(at, size, slots, load_i64(table + 8), places, sizes)
    if code >= 0:
        return code
    code = load_i64(table + 32)
    if code >= load_i64(table + 40):
        return np.int64(FULL)
    if code >= load_i64(table + 48):
        return np.int64(GROW)
    store32(slots + slot * 4, code)
    store64(places + code * 8, at)
    store32(sizes + code * 4, size)
    store64(table + 32, code + 1)
    return code


@kernel
def gather(places: Any, sizes: Any, count: Any, target: Any, offsets: Any) -> Any:
    """Copy texts one behind the other to address `target`; `offsets` gets where each begins and the last ends."""
    total = np.int64(0)
    for index in range(count):
        copy_text(target + total, places[index], sizes[index])
        offsets[index] = total
        total += sizes[index]
    offsets[count] = total


@kernel
def _number(at: Any, size: Any) -> Any:
    value = np.int64(0)
    for index in range(size):
        digit = load8(at + index) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@kernel
def read_iso(at: Any, end: Any) -> Any:
    """``(True, ns since 1970 UTC)`` of ``YYYY-MM-DD{T| }hh:mm:ss[.f][Z|+hh[:]mm]`` between two addresses.

    The fraction has 1 to 9 digits; no zone means UTC. ``(False, 0)`` for anything else.
    """
    if end - at < 19:
        return False, np.int64(0)
    year, month, day = _number(at, 4), _number(at + 5, 2), _number(at + 8, 2)
    hour, minute, second = _number(at + 11, 2), _number(at + 14, 2), _number(at + 17, 2)
    marks = load8(at + 4) == 45 and load8(at + 7) == 45 and load8(at + 13) == 58 and load8(at + 16) == 58
    middle = load8(at + 10)
    if not marks or (middle != 84 and middle != 32):
        return False, np.int64(0)
    if year < 1678 or year > 2261 or month < 1 or month > 12 or day < 1 or min(hour, minute, second) < 0:
        return False, np.int64(0)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = 31 - (month - 1) % 7 % 2 if month != 2 else 29 if leap else 28
    if day > length or hour > 23 or minute > 59 or second > 59:
        return False, np.int64(0)
    at += 19
    fraction = np.int64(0)
    if at < end and load8(at) == 46:
        first = at + 1
        at = first
        while at < end and load8(at) >= 48 and load8(at) <= 57:
            at += 1
        if at == first or at - first > 9:
            return False, np.int64(0)
        fraction = _number(first, at - first) * 10 ** (9 - (at - first))
    offset = np.int64(0)
    if at < end and load8(at) == 90:
        at += 1
    elif at < end and (load8(at) == 43 or load8(at) == 45):
        gap = 1 if load8(at + 3) == 58 else 0
        if end - at < 5 + gap:
            return False, np.int64(0)
        hours, minutes = _number(at + 1, 2), _number(at + 3 + gap, 2)
        if hours < 0 or minutes < 0 or hours > 23 or minutes > 59:
            return False, np.int64(0)
        offset = (hours * 60 + minutes) * (60 if load8(at) == 43 else -60)
        at += 5 + gap
    if at != end:
        return False, np.int64(0)
    shifted = year - 1 if month <= 2 else year  # days from civil: years begin in March
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return True, (((days * 24 + hour) * 60 + minute) * 60 + second - offset) * 1_000_000_000 + fraction
