"""Weights without pickle: seeded initialisation that does not depend on torch's generator, and safetensors files."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..pipeline.errors import FormatError, MissingExtraError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["initialise", "read_weights", "write_weights"]


def initialise(module: nn.Module, seed: int) -> None:
    """Fill every parameter from Philox, keyed by `seed` and the parameter's name.

    Matrices and kernels get ``N(0, gain / fan_in)``, gain 2 for kernels (a ReLU follows); vectors named ``weight`` are
    ones, others zero. The same on every machine and torch version, and independent of the order of construction.
    """
    import torch

    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim < 2:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=[seed, int(words[0])]))
            fan_in = math.prod(value.shape[1:])
            scale = math.sqrt((2.0 if value.ndim == 4 else 1.0) / fan_in)
            drawn = generator.standard_normal(tuple(value.shape), np.float32) * np.float32(scale)
            value.copy_(torch.from_numpy(drawn))
        for part in module.modules():
            finish = getattr(part, "after_initialise", None)
            if callable(finish):
                finish()


def read_weights(module: nn.Module, path: str) -> None:
    """Load a safetensors file into `module`. Raises FormatError naming the first tensor that does not fit."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise MissingExtraError("reading weights", "safetensors", None) from None
    try:
        loaded = load_file(path)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; weights are read where the model runs") from None
    except SafetensorError as error:
        raise FormatError(f"{path}: not a safetensors file ({error}); write one with safetensors.torch") from None
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | loaded.keys()):
        if name not in loaded:
            raise FormatError(f"{path}: tensor {name!r} {tuple(wanted[name].shape)} of the model is missing")
        if name not in wanted:
            raise FormatError(f"{path}: tensor {name!r} {tuple(loaded[name].shape)} is not part of the model")
        if wanted[name].shape != loaded[name].shape:
            raise FormatError(
                f"{path}: tensor {name!r} is {tuple(loaded[name].shape)}, the model wants {tuple(wanted[name].shape)}; "
                "the sizes given to load() must be those it was trained with"
            )
    module.load_state_dict(loaded)


def write_weights(module: nn.Module, path: str | Path) -> None:
    """Save the parameters of `module` as safetensors."""
    from safetensors.torch import save_file

    save_file({name: value.detach().contiguous() for name, value in module.state_dict().items()}, str(path))
