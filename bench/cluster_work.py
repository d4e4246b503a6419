"""The work that both sides of `cluster_data` do: one decoder, one pair of tick steps, one way to run a model.

Ray's workers import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .cluster_session import now

__all__ = [
    "FRAME_ROWS",
    "SIDE",
    "TICK_ROWS",
    "Glance",
    "Model",
    "Score",
    "features",
    "jpeg_rows",
    "model_of",
    "notional",
    "pixels",
]

SIDE, FRAME_ROWS, TICK_ROWS = 224, 32, 1_000
_SOI = b"\xff\xd8\xff"


def pixels(messages: Any) -> npt.NDArray[np.uint8]:
    """JPEGs, each behind whatever header its message has, as RGB ``[rows, side, side, 3]``, by OpenCV."""
    import cv2

    cv2.setNumThreads(0)
    out = np.empty((len(messages), SIDE, SIDE, 3), np.uint8)
    for row, message in enumerate(messages):
        data = bytes(message)
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8, offset=data.index(_SOI)), cv2.IMREAD_COLOR)
        cv2.cvtColor(cv2.resize(image, (SIDE, SIDE)), cv2.COLOR_BGR2RGB, dst=out[row])
    return out


def decode_arrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`pixels` as a map of Penstock."""
    names = [name for name in batch.schema.names if name not in ("data", "frame_id", "format")]
    images = pixels(batch["data"].to_pylist()).reshape(-1)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(images), SIDE * SIDE * 3)
    tensor = pa.fixed_shape_tensor(pa.uint8(), [SIDE, SIDE, 3])
    column = pa.ExtensionArray.from_storage(tensor, storage)
    fields = [batch.schema.field(name) for name in names]
    arrays = [batch[name] for name in names]
    return pa.RecordBatch.from_arrays([*arrays, column], schema=pa.schema([*fields, pa.field("image", tensor)]))


def decode_numpy(batch: dict[str, Any]) -> dict[str, Any]:
    """`pixels` as a function of Ray Data's ``map_batches``."""
    return {"image": pixels(batch["data"])}


def jpeg_rows(path: str) -> list[bytes]:
    """The messages of the one topic of an MCAP file, as stored."""
    from mcap.reader import make_reader

    with open(path, "rb") as stream:  # noqa: PTH123
        return [message.data for _, _, message in make_reader(stream).iter_messages()]


def notional(price: Any, size: Any) -> Any:
    """First tick step: float32 of price times size."""
    return (price * size).astype(np.float32)


def features(price: Any, size: Any, notional: Any) -> Any:
    """Second tick step: ``[rows, 4]`` float32, scaled."""
    side = np.where(size > 500, np.float32(1), np.float32(-1))
    columns = [price / 100 - 1, size / 1000, np.log1p(notional) / 10, side]
    return np.stack(columns, axis=1).astype(np.float32)


def notional_numpy(batch: dict[str, Any]) -> dict[str, Any]:
    """`notional` as a function of ``map_batches``."""
    return {**batch, "notional": notional(batch["price"], batch["size"])}


def features_numpy(batch: dict[str, Any]) -> dict[str, Any]:
    """`features` as a function of ``map_batches``."""
    return {"features": features(batch["price"], batch["size"], batch["notional"])}


def Score(*, width: int = 16) -> Any:
    """A factory of the tiny torch model of ticks: ``features`` ``[rows, 4]`` to ``score``."""
    import torch

    class _Score(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = torch.nn.Linear(4, width), torch.nn.Linear(width, 1)

        def forward(self, features: Any) -> Any:
            return self.outer(torch.relu(self.inner(features))).squeeze(-1)

    return _Score()


def Glance(*, step: int = 7, classes: int = 10) -> Any:
    """A factory of a torch model that costs next to nothing: every `step`-th pixel of ``image`` to ``logits``."""
    import torch

    class _Glance(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * len(range(0, SIDE, step)) ** 2, classes)

        def forward(self, image: Any) -> Any:
            return self.layer(image[:, ::step, ::step].flatten(1).float() / 255)

    return _Glance()


def model_of(name: str) -> Any:
    """The model spec of a kind of work: "frames", "frames, cnn" or "ticks"."""
    from penstock import models
    from penstock.pipeline.executor import TensorSpec

    if name == "frames, cnn":
        return models.load("cnn", height=SIDE, width=SIDE)
    if name == "frames":
        return models.torch_model(
            f"{__name__}:Glance", inputs={"image": TensorSpec(pa.uint8(), (SIDE, SIDE, 3))},
            outputs={"logits": TensorSpec(pa.float32(), (10,))}, seed=0,
        )  # fmt: skip
    return models.torch_model(
        f"{__name__}:Score", inputs={"features": TensorSpec(pa.float32(), (4,))},
        outputs={"score": TensorSpec(pa.float32())}, seed=0,
    )  # fmt: skip


class Model:
    """The model of a case as a class for ``map_batches``: the same executor that Penstock runs, loaded once."""

    def __init__(self, name: str, rows: int) -> None:
        from penstock.pipeline.context import Context

        spec = model_of(name)
        (self._input,), (self._output,) = spec.inputs, spec.outputs
        self._rows = rows
        self._executor = spec.open(Context("bench"), rows)
        self._ready = now()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import torch

        values = np.ascontiguousarray(batch[self._input])
        count = len(values)
        if count < self._rows:
            values = np.concatenate([values, np.zeros((self._rows - count, *values.shape[1:]), values.dtype)])
        found = self._executor.run({self._input: torch.from_numpy(values)})
        output = np.array(self._executor.fetch(found[self._output])[:count])
        return {self._output: output, "ready": np.full(count, self._ready)}
