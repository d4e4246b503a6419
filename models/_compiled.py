"""Ahead-of-time compilation for the CPU, kept in the user's cache folder and found again by content.

The key covers the graph, every constant in it (and so the weights and the calibrated scales), the shapes, the number of
threads, torch and the processor. A package is a library that is loaded as code: `cache_folder` makes sure that nobody
else could have put it there.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..pipeline.errors import PlanError
from ._cache import cache_folder

__all__ = ["compile_ahead", "inductor_cache", "package_key"]


def compile_ahead(
    module: nn.Module, example: tuple[Tensor, ...], threads: int
) -> tuple[Callable[..., Any], Path, bool]:
    """The compiled function for shapes of `example`, its package, and whether it was found in the cache.

    Raises PlanError without a C++ compiler. Called inside `inductor_cache`, with torch limited to `threads`.
    """
    exported = torch.export.export(module, example)
    package = cache_folder("compiled") / f"{package_key(exported, threads)}.pt2"
    found = package.is_file()
    if not found:
        if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
            raise PlanError(
                "compile=True needs a C++ compiler (g++ or clang++) on PATH; install one or use compile=False"
            )
        import torchao.quantization.pt2e.inductor_passes.x86 as passes  # type: ignore[import-untyped]

        passes._register_quantization_weight_pack_pass()
        draft = package.with_name(f"{package.stem}.{os.getpid()}.pt2")
        with torch._inductor.config.patch(freezing=True):
            torch._inductor.aoti_compile_and_package(exported, package_path=str(draft))
        draft.replace(package)
    return torch._inductor.aoti_load_package(str(package)), package, found


@contextmanager
def inductor_cache() -> Iterator[None]:
    """Have inductor keep its files in the user's cache folder while it compiles, unless the user chose another."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if before is not None and not _is_default(before):
        yield
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder("inductor"))
    try:
        yield
    finally:
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def _is_default(folder: str) -> bool:
    # inductor writes its own default, a folder under /tmp, into the environment when it is first asked
    path = Path(folder)
    return path.name.startswith("torchinductor_") and path.parent == Path(tempfile.gettempdir())


def package_key(exported: torch.export.ExportedProgram, threads: int) -> str:
    """The name of the package of `exported`: a digest of all that its code depends on."""
    digest = hashlib.sha256()
    digest.update(f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {threads}\n".encode())
    digest.update(_processor().encode())
    digest.update(exported.graph_module.code.encode())
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            digest.update(f"{node.name} {value.dtype} {tuple(value.shape)} {value.stride()}\n".encode())
    for name, value in sorted({**exported.state_dict, **exported.constants}.items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}\n"
    wanted = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)})) + "\n"
