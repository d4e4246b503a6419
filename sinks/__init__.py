"""Where results go."""

from .ipc import ArrowIpc
from .jsonl import JsonLines
from .memory import Callback, Collect, Null
from .parquet import Parquet

__all__ = ["ArrowIpc", "Callback", "Collect", "JsonLines", "Null", "Parquet"]
