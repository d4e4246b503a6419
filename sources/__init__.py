"""Where data comes in."""

from .driving.mcap import Mcap
from .inspect import FORMATS, inspect
from .market.itch import Itch
from .memory import Rows
from .text.ndjson import Ndjson, game_events

__all__ = ["FORMATS", "Itch", "Mcap", "Ndjson", "Rows", "game_events", "inspect"]
