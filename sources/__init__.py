"""Where data comes in."""

from .inspect import FORMATS, inspect
from .itch import Itch
from .mcap import Mcap
from .memory import Rows
from .ndjson import Ndjson, game_events

__all__ = ["FORMATS", "Itch", "Mcap", "Ndjson", "Rows", "game_events", "inspect"]
