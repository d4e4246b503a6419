"""A small convolutional classifier; its stem also feeds the fusion model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CnnModel", "Stem"]


class Stem(nn.Module):
    """uint8 ``(batch, height, width, 3)`` to float ``(batch, channels, height/32, width/32)``.

    Bytes travel to the device, a quarter of float32, and are read in the order they come in (channels last), without a
    transposing copy. Normalisation to ``(x - 128) / 64`` is part of the first layer's weights: that layer pads nothing,
    so this is exact, and an int8 model then takes the bytes themselves as its quantized input.
    """

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.conv1 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(64, channels, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def after_initialise(self) -> None:
        """Fold the normalisation into freshly drawn weights."""
        weight = self.patch.weight / 64
        self.patch.weight.copy_(weight)
        if self.patch.bias is not None:
            self.patch.bias.copy_(-128 * weight.sum((1, 2, 3)))

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).to(self.patch.weight.dtype)
        for layer in (self.patch, self.conv1, self.conv2, self.conv3):
            x = functional.relu(layer(x))
        return x


class CnnModel(nn.Module):
    """``image`` uint8 ``(batch, height, width, 3)`` to ``logits`` float32 ``(batch, classes)``."""

    def __init__(self, *, height: int = 224, width: int = 224, classes: int = 10, channels: int = 128) -> None:
        super().__init__()
        if height % 32 or width % 32:
            raise ValueError(f"height and width must be multiples of 32, got {height}x{width}")
        self.stem = Stem(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        pooled = torch.mean(self.stem(image), (2, 3))
        logits: Tensor = self.head(pooled)
        return logits.float()
