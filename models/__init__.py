"""What consumes data: reference models, any torch module, and a simulator of an accelerator."""

from ..pipeline.executor import Executor, ModelSpec, TensorSpec
from .error_report import ErrorReport, error_report
from .load import TorchModel, load, torch_model
from .simulator import Simulator

__all__ = [
    "ErrorReport",
    "Executor",
    "ModelSpec",
    "Simulator",
    "TensorSpec",
    "TorchModel",
    "error_report",
    "load",
    "torch_model",
]
