"""Static int8 on x86: torchao's pt2e quantization, lowered to oneDNN int8 kernels without compiling anything.

torchao leaves the quantized graph to the inductor compiler, which takes 15 to 30 s and a C++ compiler. Its lowering passes
alone, run over the exported graph, already give one oneDNN call for each convolution and linear layer with packed
weights; what is left is run as it is. Two passes of our own then take the interpreter's remaining cost: (de)quantization
in place, and images kept as the bytes they came as. Per-tensor scales are fixed by calibration, so a row's result
does not depend on its neighbours.
"""

from __future__ import annotations

import operator
import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["constant_bytes", "lower", "quantize_static", "supported"]

Inputs = tuple[Tensor, ...]


def supported() -> bool:
    """Whether this machine has the oneDNN x86 kernels."""
    return platform.machine().lower() in ("x86_64", "amd64") and torch._C._has_mkldnn


def quantize_static(module: nn.Module, calibration: Sequence[Inputs]) -> fx.GraphModule:
    """`module` exported, observed on `calibration` and converted: int8 weights, quantize and dequantize nodes between."""
    from torchao.quantization.pt2e import move_exported_model_to_eval  # type: ignore[import-untyped]
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # type: ignore[import-untyped]
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # type: ignore[import-untyped]
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    # without VNNI the int8 product saturates in 16 bits, unless activations keep to 7 bits
    narrow = not torch.cpu._is_vnni_supported()
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(reduce_range=narrow))
    prepared = prepare_pt2e(torch.export.export(module, calibration[0]).module(), quantizer)
    for inputs in calibration:
        prepared(*inputs)
    converted: fx.GraphModule = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    return converted


def lower(converted: fx.GraphModule, example: Inputs) -> fx.GraphModule:
    """A graph of oneDNN int8 kernels for the batch size of `example`."""
    import torchao.quantization.pt2e.inductor_passes.x86 as passes  # type: ignore[import-untyped]
    from torch._inductor.constant_folding import constant_fold
    from torch._inductor.fx_passes.freezing_patterns import freezing_passes

    passes._register_quantization_weight_pack_pass()
    decompositions = torch.export.default_decompositions()
    for name in list(decompositions):
        if not torch._export.utils._is_cia_op(name):
            del decompositions[name]
    lowered: fx.GraphModule = torch.export.export(converted, example).run_decompositions(decompositions).module()
    _use_names_of_the_patterns(lowered)
    freezing_passes(lowered, example)
    constant_fold(lowered)
    _keep_bytes(lowered)
    _quantize_in_place(lowered)
    lowered.graph.eliminate_dead_code()
    lowered.recompile()
    return lowered


def constant_bytes(module: fx.GraphModule) -> int:
    """Bytes of the weights and scales that the graph uses."""
    names = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    values = (operator.attrgetter(name)(module) for name in sorted(names))
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def _use_names_of_the_patterns(module: fx.GraphModule) -> None:
    """Rename operators as inductor does before it looks for patterns: permute for t, reshape for view."""
    aten = torch.ops.aten
    for node in list(module.graph.nodes):
        if node.target is aten.t.default:
            with module.graph.inserting_before(node):
                swapped = module.graph.call_function(aten.permute.default, args=(node.args[0], [1, 0]))
            swapped.meta = dict(node.meta)
            node.replace_all_uses_with(swapped)
            module.graph.erase_node(node)
        elif node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        elif node.target is aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def _keep_bytes(module: fx.GraphModule) -> None:
    """A convolution over uint8 converted to float and quantized again takes the uint8 itself: scale 1, zero point 0."""
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    for node in module.graph.nodes:
        if node.target is not torch.ops.onednn.qconv_pointwise.default:
            continue
        quantized = _called(node.args[0], quantize)
        cast = _called(quantized.args[0], torch.ops.aten._to_copy.default) if quantized is not None else None
        original = cast.args[0] if cast is not None else None
        if isinstance(original, fx.Node) and getattr(original.meta.get("val"), "dtype", None) is torch.uint8:
            node.args = (original, 1.0, 0, *node.args[3:])


def _called(value: Any, target: Any) -> fx.Node | None:
    """`value` if it is a call of `target`, else None."""
    return value if isinstance(value, fx.Node) and value.target is target else None


def _quantize_in_place(module: fx.GraphModule) -> None:
    """Replace the reference (de)quantization, which allocates for each of its five steps, by one that allocates twice."""
    reference = torch.ops.quantized_decomposed
    for node in module.graph.nodes:
        if node.target is reference.quantize_per_tensor.default:
            node.target = _quantize
        elif node.target is reference.dequantize_per_tensor.default and not node.kwargs:
            node.target = _dequantize


def _quantize(value: Tensor, scale: float, zero: int, low: int, high: int, dtype: Any) -> Tensor:
    return value.mul(1.0 / scale).round_().add_(zero).clamp_(low, high).to(dtype)


def _dequantize(value: Tensor, scale: float, zero: int, low: int, high: int, dtype: Any) -> Tensor:
    return value.to(torch.float32).sub_(zero).mul_(scale)
