"""Transformer blocks for the reference networks; attention is always `scaled_dot_product_attention`.

Padded keys are masked through the last channel of each head: queries hold a constant there and keys hold 0 or a large
negative number, so a padded key's weight is exactly zero. An `attn_mask` would do the same, but the CUDA flash kernels
take none. A position whose keys are all padded averages its values instead of giving NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Block", "Encoder", "compress"]

#: Added to the score of a padded key before the softmax; representable in float16.
_MASKED = -1.0e4


class Attention(nn.Module):
    """Multi-head self-attention over ``(batch, tokens, width)``, optionally causal, padded or rotary."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        if width % heads or (width // heads) % 2:
            raise ValueError(f"width must be an even multiple of heads, got {width=} {heads=}")
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, padding: Tensor | None = None, rotary: Tensor | None = None) -> Tensor:
        """`padding` is ``(batch, tokens)``, 1 where a token is padding; `rotary` ``(2, tokens, head_width)``."""
        batch, tokens, width = x.shape
        packed = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        if rotary is not None:
            q, k = _rotate(q, rotary), _rotate(k, rotary)
        if padding is not None:
            bias = (padding * _MASKED)[:, None, :, None].expand(-1, self.heads, -1, -1)
            q = torch.cat((q[..., :-1], torch.ones_like(q[..., -1:])), -1)
            k = torch.cat((k[..., :-1], bias.to(k.dtype)), -1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        mixed_heads: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return mixed_heads


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a feed-forward layer of four times the width."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, padding: Tensor | None = None, rotary: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), padding, rotary)
        rows = self.norm2(x).flatten(0, 1)  # two dimensions: int8 lowering then keeps the wide layer's output in int8
        wide: Tensor = functional.relu(self.up(rows))
        added: Tensor = self.down(wide)
        return x + added.view_as(x)


class Encoder(nn.Module):
    """`layers` blocks and a final norm over ``(batch, tokens, width)``; `rotary` positions if `length` is given."""

    def __init__(self, width: int, heads: int, layers: int, *, causal: bool = False, length: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, causal=causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        if length:
            self.register_buffer("rotary", rotary_table(length, width // heads), persistent=False)
        else:
            self.rotary = None

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, padding, self.rotary)
        normed: Tensor = self.norm(x)
        return normed


def rotary_table(length: int, width: int) -> Tensor:
    """Cosines and sines of rotary positions, ``(2, length, width)`` (Su et al., arXiv 2104.09864)."""
    rate = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate.repeat(2)
    return torch.stack((angle.cos(), angle.sin())).float()


def _rotate(x: Tensor, rotary: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    table = rotary.to(x.dtype)
    return x * table[0] + torch.cat((-second, first), -1) * table[1]


def compress(x: Tensor) -> Tensor:
    """``sign(x) log(1 + |x|)``: keeps map coordinates and small deltas in one range. NaN becomes 0."""
    clean = torch.nan_to_num(x.float())
    return torch.sign(clean) * torch.log1p(clean.abs())
