"""Which attention kernel a model really ran, seen while it ran."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["attention_in_call", "attention_in_package"]

#: Part of a kernel's name, and what it is called in reports; the first that is found counts.
_KERNELS = (
    ("flash_attention", "flash"),
    ("efficient_attention", "efficient"),
    ("cudnn_attention", "cudnn"),
    ("scaled_dot_product_attention_math", "math"),
)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled; torch would import its compiler to keep it away, for two seconds

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def attention_in_call(call: Callable[[], object], device: torch.device) -> str:
    """``flash``, ``efficient``, ``cudnn``, ``math`` or ``none``: what `call` dispatched to.

    On CUDA the profiler is asked, because compiled code launches kernels without dispatching them.
    """
    with torch.no_grad():  # under inference_mode the composite attention is not taken apart where a recorder sees it
        if device.type == "cpu":
            with _Recorder() as recorder:
                call()
            names = recorder.names
        else:
            with torch.autograd.profiler.profile(use_device=device.type) as profile:
                call()
                torch.cuda.synchronize(device)
            names = {event.name for event in profile.function_events}
    return _classify(names)


def attention_in_package(path: Path) -> str:
    """The same for an ahead-of-time compiled package, from the kernels that its library links to."""
    names = set()
    with zipfile.ZipFile(path) as package:
        for entry in package.namelist():
            if entry.endswith(".so"):
                code = package.read(entry)
                names |= {part for part, _ in _KERNELS if part.encode() in code}
    return _classify(names)


def _classify(names: set[str]) -> str:
    for part, label in _KERNELS:
        if any(part in name for name in names):
            return label
    # the math backend is taken apart into products and a softmax before it can be seen by name
    products = any("bmm" in name or "matmul" in name for name in names)
    return "math" if products and any("softmax" in name for name in names) else "none"
