"""What the driver knows of deaths: when to be careful, and what to suspect.

A first loss may be anything: a machine, a signal, memory. From then on processes that decode note what they work on. A
note left by one that dies is a suspect, and is worked on apart from then on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from .member import Caution
from .staffing import Seat

__all__ = ["Suspicion"]


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
            if seat.kind in ("reader", "pool")
        }

    def learn(self, gone: Iterable[Seat]) -> None:
        """These are gone: read what they noted; the others' notes are void."""
        for seat in gone:
            note = self._read(self._key(seat))
            if note is not None and note not in self._suspects:
                self._suspects.append(note)
        self.forget()
        self._careful = True

    @property
    def suspects(self) -> list[str]:
        return list(self._suspects)

    def forget(self) -> None:
        """Remove every note."""
        from ray.experimental.internal_kv import _internal_kv_del

        with contextlib.suppress(Exception):
            _internal_kv_del(f"run-{self._run}-".encode(), del_by_prefix=True, namespace=b"penstock")

    def _key(self, seat: Seat) -> str:
        return f"run-{self._run}-{seat.kind}-{seat.serves}-{seat.number}"

    def _read(self, key: str) -> str | None:
        from ray.experimental.internal_kv import _internal_kv_get

        found: Any = _internal_kv_get(key.encode(), namespace=b"penstock")
        return None if found is None else bytes(found).decode()
