"""Where results go."""

from .callback import Callback
from .ipc import ArrowIpc
from .jsonl import JsonLines
from .memory import Collect, Null
from .parquet import Parquet

__all__ = ["ArrowIpc", "Callback", "Collect", "JsonLines", "Null", "Parquet"]
