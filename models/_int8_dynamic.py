"""Dynamic int8 for linear layers: torchao's `quantize_`, for CUDA and for processors without the x86 kernels.

Activations are quantized per row while the model runs, so there is nothing to calibrate and rows stay independent.
Convolutions stay in floating point. On CUDA the rest of the model is bfloat16.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["quantize_linear", "tensor_bytes"]


def quantize_linear(module: nn.Module) -> int:
    """Quantize, in place, the linear layers that int8 kernels can take; how many there were."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_  # type: ignore[import-untyped]

    chosen = {name for name, part in module.named_modules() if _fits(part)}
    quantize_(module, Int8DynamicActivationInt8WeightConfig(), filter_fn=lambda part, name: name in chosen)
    return len(chosen)


def _fits(part: nn.Module) -> bool:
    # int8 matrix products want both extents in whole 16s; others have crashed compiled kernels, not just missed them
    return isinstance(part, nn.Linear) and part.in_features % 16 == 0 and part.out_features % 16 == 0


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, counting the parts of quantized ones."""
    return sum(_bytes(value) for value in (*module.parameters(), *module.buffers()))


def _bytes(value: torch.Tensor) -> int:
    if hasattr(value, "__tensor_flatten__") and type(value) is not nn.Parameter:
        names, _ = value.__tensor_flatten__()
        return sum(_bytes(getattr(value, name)) for name in names)
    return value.numel() * value.element_size()
