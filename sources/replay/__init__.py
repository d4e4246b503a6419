"""Recording feeds, and serving recordings at their own pace."""

from .serving import ReplayReport, replay

__all__ = ["ReplayReport", "replay"]
