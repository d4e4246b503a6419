"""What a user says of how many processes a step may have and what each of them needs, checked where it is written."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import GraphError
from .site import calling_site

__all__ = ["Parallelism", "between", "demanded", "positive"]

#: How often a step may be at work at once: a number, or the least and the most.
Parallelism = int | tuple[int, int]


def positive(value: int | None, name: str) -> int | None:
    """`value`, 1 or more, or None. Raises GraphError."""
    if value is not None and value < 1:
        raise GraphError(f"{name} must be at least 1", where=str(calling_site()), got=value)
    return value


def between(parallelism: Parallelism | None, *, stateless: bool) -> tuple[int | None, int | None]:
    """The least, if it is not the most too, and the most. Raises GraphError if these are no limits for such a step."""
    if not isinstance(parallelism, tuple):
        return None, positive(parallelism, "parallelism")
    if len(parallelism) != 2 or not all(isinstance(number, int) for number in parallelism):
        raise GraphError("parallelism is a number or (least, most)", where=str(calling_site()), got=parallelism)
    least, most = parallelism
    positive(least, "parallelism")
    if least > most:
        raise GraphError("parallelism: the least is above the most", where=str(calling_site()), got=parallelism)
    if least == most:
        return None, most
    if not stateless:
        wrong = "parallelism between two numbers is for steps without state; give one number"
        raise GraphError(wrong, where=str(calling_site()), got=parallelism)
    return least, most


def demanded(resources: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """What each process of a step needs. Raises GraphError if an amount is not a number of 0 or more."""
    for name, amount in (resources or {}).items():
        if not isinstance(amount, (int, float)) or amount < 0:
            raise GraphError(f"resources: {name!r} must be a number, 0 or more", where=str(calling_site()), got=amount)
    return dict(resources) if resources else None
