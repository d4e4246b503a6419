"""The language and how it runs."""

from .clock import Clock, ManualClock, RealClock, SyntheticClock
from .errors import (
    DecodeError,
    FormatError,
    GraphError,
    MissingExtraError,
    PenstockError,
    PlanError,
    RunError,
    StateLimitError,
)
from .flow import Flow
from .options import RunOptions
from .report import Report
from .schema import event_schema, tensor_type
from .stream import Stream, read

__all__ = [
    "Clock",
    "DecodeError",
    "Flow",
    "FormatError",
    "GraphError",
    "ManualClock",
    "MissingExtraError",
    "PenstockError",
    "PlanError",
    "RealClock",
    "Report",
    "RunError",
    "RunOptions",
    "StateLimitError",
    "Stream",
    "SyntheticClock",
    "event_schema",
    "read",
    "tensor_type",
]
