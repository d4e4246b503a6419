"""A second, plain reader of Slippi replays with `struct`, and a writer of made-up ones. Nothing of the package is used."""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["Game", "naive_rows", "write_container"]

PRE, POST, START, END, FRAME_START, BOOKEND = 0x37, 0x38, 0x36, 0x39, 0x3A, 0x3C


def naive_rows(data: bytes, table: str) -> list[dict[str, Any]]:
    """The rows of a whole replay: the last event of each frame, player and follower, sorted; fields that lack are None."""
    at = 15 if data[:1] == b"{" else 0
    length = struct.unpack_from(">I", data, 11)[0] if at else 0
    end = at + length if length else len(data)
    sizes = {0x35: data[at + 1]}
    for i in range(at + 2, at + 1 + data[at + 1], 3):
        sizes[data[i]] = struct.unpack_from(">H", data, i + 1)[0]
    kept: dict[tuple[int, int, bool], bytes] = {}
    while at < end and data[at] in sizes:
        event = data[at : at + 1 + sizes[data[at]]]
        at += len(event)
        if event[0] == FRAME_START:
            frame = struct.unpack_from(">i", event, 1)[0]
            kept = {key: value for key, value in kept.items() if key[0] != frame}
        if event[0] == (PRE if table == "input" else POST):
            frame, player, follower = struct.unpack_from(">iB?", event, 1)
            kept[frame, player, follower] = event
    fields = _INPUT if table == "input" else _STATE
    rows = []
    for (frame, player, follower), event in sorted(kept.items()):
        row: dict[str, Any] = {"frame": frame, "player": player, "follower": follower}
        for name, (place, form) in fields.items():
            whole = place + struct.calcsize(form) <= len(event)
            row[name] = struct.unpack_from(form, event, place)[0] if whole else None
        if table == "state" and row["facing"] is not None:
            row["facing"] = (row["facing"] > 0) - (row["facing"] < 0)
        rows.append(row)
    return rows


_INPUT = {
    "stick_x": (0x19, ">f"),
    "stick_y": (0x1D, ">f"),
    "c_x": (0x21, ">f"),
    "c_y": (0x25, ">f"),
    "trigger_l": (0x33, ">f"),
    "trigger_r": (0x37, ">f"),
    "buttons": (0x2D, ">I"),
    "buttons_phys": (0x31, ">H"),
    "action_state": (0x0B, ">H"),
    "seed": (0x07, ">I"),
}
_STATE = {
    "character": (0x07, ">B"),
    "action_state": (0x08, ">H"),
    "x": (0x0A, ">f"),
    "y": (0x0E, ">f"),
    "facing": (0x12, ">f"),
    "percent": (0x16, ">f"),
    "shield": (0x1A, ">f"),
    "stocks": (0x21, ">B"),
    "airborne": (0x2F, ">?"),
}


def write_container(
    events: bytes, *, start_at: str | None = "2023-01-02T12:34:56Z", length: int | None = None
) -> bytes:
    """A whole file around `events`; `length` lies about them. Names stand in the metadata, to see that they do not leave."""
    count = len(events) if length is None else length
    head = b"{U\x03raw[$U#l" + struct.pack(">I", count)
    text = b"" if start_at is None else b"U\x07startAtSU" + bytes([len(start_at)]) + start_at.encode()
    names = b"U\x07players{U\x010{U\x05names{U\x07netplaySU\x06SECRETU\x04codeSU\x07SECR#12}}}"
    return head + events + b"U\x08metadata{" + text + b"U\x09lastFramel\x00\x00\x00\x05" + names + b"}}"


class Game:
    """Makes up the events of a game. Values follow from frame, player and `turn`, so a resent frame differs."""

    def __init__(self, version: tuple[int, int] = (3, 9), *, short: int = 0) -> None:
        self.modern = version >= (3, 0)
        self.sizes = {START: 0x1A2, PRE: 0x3A + 6 - short, POST: 0x33 if version >= (2, 0) else 0x25, END: 2}
        if self.modern:
            self.sizes |= {FRAME_START: 12, BOOKEND: 8 if version >= (3, 7) else 4}
        self.tells = version >= (3, 7)
        table = b"".join(struct.pack(">BH", code, size) for code, size in self.sizes.items())
        self.head = bytes([0x35, len(table) + 1]) + table
        start = bytearray(1 + self.sizes[START])
        start[0], start[1], start[2] = START, *version
        for port in range(4):
            start[0x66 + 0x24 * port] = 0 if port < 2 else 3
        self.head += bytes(start)

    def frame(
        self, frame: int, *, players: int = 2, turn: int = 0, follower: bool = False, final: int | None = None
    ) -> bytes:
        """The events of one frame: its start, inputs, states, its end."""
        out = b""
        if self.modern:
            out += self._sized(FRAME_START, struct.pack(">iI", frame, turn))
        who = [(player, False) for player in range(players)] + ([(0, True)] if follower else [])
        for kind in (PRE, POST):
            for player, second in who:
                out += self._event(kind, frame, player, second, turn)
        if self.modern:
            done = frame if final is None else final
            out += self._sized(BOOKEND, struct.pack(">ii", frame, done))
        return out

    def end(self) -> bytes:
        return self._sized(END, b"\x02")

    def _event(self, kind: int, frame: int, player: int, follower: bool, turn: int) -> bytes:
        seed = (frame * 7919 + player * 31 + follower * 13 + turn * 101) & 0xFFFFFFFF
        head = struct.pack(">iB?", frame, player, follower)
        if kind == PRE:
            floats = struct.pack(">8f", *(((seed >> i) % 200 - 100) / 100 for i in range(8)))
            body = (
                struct.pack(">IH", seed, seed & 0xFFFF) + floats + struct.pack(">IHff", seed, seed & 0xFFFF, 0.25, 0.75)
            )
        else:
            side = 1.0 if seed & 1 else -1.0
            body = struct.pack(">BH5f", player + 5, seed & 0x3FF, frame / 4, turn + 0.5, side, frame % 150, 60.0)
            body += bytes([1, 2, 3, 4]) + bytes(13) + bytes([seed >> 1 & 1])
        return self._sized(kind, head + body)

    def _sized(self, kind: int, body: bytes) -> bytes:
        size = self.sizes[kind]
        return bytes([kind]) + body[:size].ljust(size, b"\0")
