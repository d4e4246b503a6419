"""Ray, started once and quietly, for the contenders that run on it."""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["start_ray", "stop_ray"]


def start_ray() -> Any:
    """The ray module with a local Ray running, all cores, no dashboard."""
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def stop_ray() -> None:
    """Stop it, if it was started."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
