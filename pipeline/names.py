"""One name or several: what arguments that take names of columns, symbols, topics or interfaces are given."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["names_in"]


def names_in(given: str | Iterable[str]) -> tuple[str, ...]:
    """The names in `given`: a text is one name, and not one for each of its letters."""
    return (given,) if isinstance(given, str) else tuple(given)
