"""How the language reaches operators without importing them.

`Stream.sync(...)` is a word of the language; the operator behind it lives in the room `ops`, which imports this one and
not the other way round. A spec class registers itself under its word when its module is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .errors import GraphError

__all__ = ["supplied", "supplies"]

_WORDS: dict[str, Callable[..., Any]] = {}
C = TypeVar("C", bound=Callable[..., Any])


def supplies(word: str) -> Callable[[C], C]:
    """Class decorator: this spec is what the language's `word` builds."""

    def register(factory: C) -> C:
        known = _WORDS.setdefault(word, factory)
        if known is not factory and getattr(known, "__qualname__", "") != getattr(factory, "__qualname__", ""):
            raise ValueError(f"the word {word!r} is already supplied by {known!r}")
        _WORDS[word] = factory
        return factory

    return register


def supplied(word: str) -> Callable[..., Any]:
    """The spec factory for `word`. Raises GraphError when the room that has it was never imported."""
    try:
        return _WORDS[word]
    except KeyError:
        raise GraphError(f"no operator supplies {word!r}; import penstock.ops first") from None
