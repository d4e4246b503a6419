"""How the language reaches operators without importing them.

`Stream.sync(...)` is a word of the language; the operator behind it lives in the room `ops`, which imports this one and
not the other way round. The package tells here how to find that room; it is imported when a word is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .errors import GraphError

__all__ = ["supplied", "supplies", "when_missing"]

C = TypeVar("C", bound=Callable[..., Any])
_WORDS: dict[str, Callable[..., Any]] = {}
_SUPPLIERS: list[Callable[[], object]] = []


def supplies(word: str) -> Callable[[C], C]:
    """Class decorator: this spec is what the language's `word` builds. Raises ValueError if another one already is."""

    def register(factory: C) -> C:
        if _WORDS.setdefault(word, factory) is not factory:
            raise ValueError(f"the word {word!r} is already supplied by {_WORDS[word]!r}")
        return factory

    return register


def when_missing(supplier: Callable[[], object]) -> None:
    """`supplier` is called once, when a word is asked for that nobody has supplied yet."""
    _SUPPLIERS.append(supplier)


def supplied(word: str) -> Callable[..., Any]:
    """The spec factory for `word`. Raises GraphError if there is none."""
    while word not in _WORDS and _SUPPLIERS:
        _SUPPLIERS.pop()()
    try:
        return _WORDS[word]
    except KeyError:
        raise GraphError(f"no operator supplies {word!r}", expected=sorted(_WORDS), got=word) from None
