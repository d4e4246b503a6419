"""What the numbers were measured on: hardware, system and library versions; no names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["describe"]

_PACKAGES = (
    "penstock", "numpy", "pyarrow", "numba", "torch", "ray", "mcap", "simplejpeg", "msgspec", "polars",
    "opencv-python-headless", "pillow", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "itchfeed", "itchcpp", "itch-book",
    "bytewax",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Processor, cores this process may use, memory, system, Python and the versions of the packages that take part."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for key in ("model name", "Model", "Hardware"):
            if match := re.search(rf"^{key}\s*:\s*(.+)$", info.read_text(), re.MULTILINE):
                return match[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
