"""What the errors of librdkafka mean for a reader."""

from __future__ import annotations

from confluent_kafka import KafkaError

__all__ = ["OUT_OF_RANGE", "PASSING", "Missing", "text_of"]

#: The offset that was asked for is not there.
OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
#: What librdkafka mends itself.
PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)


class Missing(Exception):
    """A topic or a partition that is not there, perhaps not yet."""


def text_of(error: Exception) -> str:
    """The line that says what was wrong."""
    inner = error.args[0] if error.args else error
    return str(inner.str()) if isinstance(inner, KafkaError) else str(error)
