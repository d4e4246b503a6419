"""What the driver knows of deaths: when to be careful, and what to suspect.

A first loss may be anything: a machine, a signal, memory. From then on processes that decode note what they work on. A
note left by one that dies is a suspect, and is worked on apart from then on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .marks import Marks
from .staffing import Seat

__all__ = ["Caution", "Suspicion"]

_SPACE = b"penstock"


@dataclass(frozen=True)
class Caution:
    """How careful to be: `key` is where to note what is worked on, `suspects` what processes died on."""

    careful: bool = False
    suspects: Sequence[str] = ()
    key: str = ""

    def marks(self) -> Marks:
        """For the process that is to be careful."""
        return Marks(careful=self.careful, suspects=self.suspects, write=self._write if self.careful else None)

    def _write(self, step: str, note: str) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(f"{self.key}{step}".encode(), note.encode(), overwrite=True, namespace=_SPACE)


class Suspicion:
    """Kept over the attempts of one run; `run` tells its notes from those of others."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._careful = False
        self._suspects: list[str] = []

    def cautions(self, seats: Iterable[Seat]) -> Mapping[Seat, Caution]:
        """How careful each process has to be."""
        return {
            seat: Caution(self._careful, tuple(self._suspects), self._key(seat))
            for seat in seats
            if seat.kind != "part"
        }

    def learn(self, gone: Iterable[Seat]) -> bool:
        """These are gone: read what they noted; the others' notes are void. Whether there is a new suspect."""
        known = len(self._suspects)
        for seat in gone:
            self._suspects += [note for note in self._notes(self._key(seat)) if note not in self._suspects]
        self.forget()
        self._careful = True
        return len(self._suspects) > known

    def forget(self) -> None:
        """Remove every note."""
        from ray.experimental.internal_kv import _internal_kv_del

        with contextlib.suppress(Exception):
            _internal_kv_del(f"run-{self._run}-".encode(), del_by_prefix=True, namespace=_SPACE)

    def _key(self, seat: Seat) -> str:
        return f"run-{self._run}-{seat.kind}-{seat.serves}-{seat.number}/"

    def _notes(self, prefix: str) -> list[str]:
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        keys = _internal_kv_list(prefix.encode(), namespace=_SPACE)
        found = [_internal_kv_get(key, namespace=_SPACE) for key in sorted(keys)]
        return [bytes(note).decode() for note in found if note is not None]
