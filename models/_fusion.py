"""Camera and radar in one transformer: image patches, radar points and object queries attend to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._attention import Encoder, compress
from ._cnn import Stem

__all__ = ["FusionModel"]


class FusionModel(nn.Module):
    """Camera frame and radar points to `objects` candidate objects, each with a score and a distance.

    ``image`` uint8 ``(batch, height, width, 3)``, ``radar`` float32 ``(batch, points, fields)``, ``radar_mask``
    float32 ``(batch, points)`` (1 = a point, 0 = padding) to ``score`` in 0..1 and ``distance`` in metres, both
    ``(batch, objects)``. Padded points have no influence, whatever they hold.
    """

    def __init__(
        self,
        *,
        height: int = 224,
        width: int = 224,
        points: int = 64,
        fields: int = 5,
        objects: int = 16,
        channels: int = 128,
        heads: int = 4,
        layers: int = 2,
    ) -> None:
        super().__init__()
        if height % 32 or width % 32:
            raise ValueError(f"height and width must be multiples of 32, got {height}x{width}")
        patches = (height // 32) * (width // 32)
        self.points = points
        self.stem = Stem(channels)
        self.radar = nn.Linear(fields, channels)
        self.queries = nn.Parameter(torch.zeros(1, objects, channels))
        self.positions = nn.Parameter(torch.zeros(1, patches, channels))
        self.encoder = Encoder(channels, heads, layers)
        self.head = nn.Linear(channels, 2)

    def forward(self, image: Tensor, radar: Tensor, radar_mask: Tensor) -> tuple[Tensor, Tensor]:
        batch, objects = image.shape[0], self.queries.shape[1]
        patches = self.stem(image).flatten(2).transpose(1, 2) + self.positions
        present = radar_mask > 0.5
        points = self.radar(compress(torch.where(present[..., None], radar, 0.0)).to(patches.dtype))
        tokens = torch.cat((self.queries.expand(batch, -1, -1), patches, points), 1)
        seen = torch.zeros_like(tokens[:, : tokens.shape[1] - self.points, 0])
        padding = torch.cat((seen, (~present).to(seen.dtype)), 1)
        found = self.head(self.encoder(tokens, padding)[:, :objects]).float()
        return torch.sigmoid(found[..., 0]), functional.softplus(found[..., 1]) * 50.0
