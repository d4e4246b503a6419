"""Codecs by the names that recordings keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...pipeline.errors import FormatError
from .adc_packets import AdcPackets
from .can_lines import CanLines
from .crypto_messages import CryptoMessages
from .game_states import GameStates
from .itch_packets import MoldPackets
from .json_messages import JsonMessages
from .radar_packets import RadarPackets
from .raw_messages import RawMessages
from .session import Codec
from .slippi_events import SlippiEvents
from .topic_messages import TopicMessages

__all__ = ["codec_classes", "codec_named"]

_CODECS: dict[str, Any] = {
    "candump": CanLines,
    "crypto": CryptoMessages,
    "dca1000": AdcPackets,
    "gsi": GameStates,
    "json": JsonMessages,
    "mold-itch50": MoldPackets,
    "radar": RadarPackets,
    "raw": RawMessages,
    "slippi": SlippiEvents,
    "topic": TopicMessages,
}


def codec_classes() -> list[str]:
    """The names of the classes, sorted: what ``codec=`` may be given."""
    return sorted(kind.__name__ for kind in _CODECS.values())


def codec_named(name: str, options: Mapping[str, Any]) -> Codec:
    """The codec called `name` whose `describe` gave `options`. Raises FormatError for one that is not known."""
    kind = _CODECS.get(name)
    if kind is None:
        known = ", ".join(sorted(_CODECS))
        raise FormatError(f"a recording of the codec {name!r}, which this version does not have; it has {known}")
    try:
        made: Codec = kind.described(options)
    except TypeError as error:
        raise FormatError(f"a recording of the codec {name!r} with options of another version: {error}") from None
    return made
