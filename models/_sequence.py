"""A small causal transformer over a window of ticks or actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._attention import Encoder, compress

__all__ = ["ActionModel", "MarketModel", "SequenceTransformer"]


class SequenceTransformer(nn.Module):
    """``(batch, length, width)`` embeddings to the final hidden states of the same shape; rotary positions."""

    def __init__(self, length: int, width: int = 64, heads: int = 4, layers: int = 2, *, causal: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(width, heads, layers, causal=causal, length=length)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.encoder(x, padding)
        return hidden


class MarketModel(nn.Module):
    """``features`` float32 ``(batch, length, features)`` to ``probabilities`` ``(batch, 3)``: down, flat, up.

    Each feature is standardised over its own window, so prices, sizes and ratios may come as they are.
    """

    def __init__(
        self, *, length: int = 64, features: int = 8, width: int = 64, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.trunk = SequenceTransformer(length, width, heads, layers)
        self.head = nn.Linear(width, 3)

    def forward(self, features: Tensor) -> Tensor:
        # in float32: half precision cannot tell neighbouring prices apart
        raw = features.float()
        centred = raw - raw.mean(1, keepdim=True)
        spread = centred.square().mean(1, keepdim=True).sqrt()
        x = (centred / (spread + 1e-6)).to(self.embed.weight.dtype)
        hidden = self.trunk(self.embed(x))
        return torch.softmax(self.head(hidden[:, -1]).float(), -1)


class ActionModel(nn.Module):
    """``tokens`` int32 ``(batch, length)`` and ``context`` float32 ``(batch, length, context)`` to the next action.

    Gives ``next_action`` logits ``(batch, vocabulary)`` and ``value`` ``(batch,)`` from the last position. Token 0 is
    padding (a history shorter than the window is padded in front); a token outside the vocabulary counts as padding.
    """

    def __init__(
        self,
        *,
        length: int = 64,
        vocabulary: int = 256,
        context: int = 3,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.context = nn.Linear(context, width)
        self.trunk = SequenceTransformer(length, width, heads, layers)
        self.action = nn.Linear(width, vocabulary)
        self.value = nn.Linear(width, 1)
        self.vocabulary = vocabulary

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        known = (tokens > 0) & (tokens < self.vocabulary)
        x = self.embed(torch.where(known, tokens, 0)) + self.context(compress(context).to(self.context.weight.dtype))
        last = self.trunk(x, (~known).to(x.dtype))[:, -1]
        return self.action(last).float(), self.value(last).float().squeeze(-1)
