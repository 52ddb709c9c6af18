"""Attention between tokens on a grid: all with all as published, or in windows in linear memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """softmax(QKᵀ/√d)·V over the tokens of each batch entry, with several heads.

    Runs as one fused operation, so no (N, N) map is kept where the platform has such a kernel.

    Args:
        channels: of tokens. heads: that share them.

    Raises:
        ValueError: channels are no multiple of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels = {channels}, heads = {heads}: channels must be a "
                             "multiple of heads")
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, query: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) asks (B, M, C); `bias` (heads, N, M) is added to the scores."""
        q = self._split(self.query(query))
        k, v = (self._split(t) for t in self.key_value(memory).chunk(2, -1))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        joined: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        return x.view(batch, tokens, self.heads, channels // self.heads).transpose(1, 2)


def to_windows(x: Tensor, size: int) -> Tensor:
    """(B, C, H, W), H and W multiples of `size`, to tokens (B·windows, size², C)."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // size, size, w // size, size).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, size * size, c)


def from_windows(tokens: Tensor, size: int, shape: tuple[int, int, int]) -> Tensor:
    """Undo `to_windows`; shape = (B, H, W)."""
    b, h, w = shape
    x = tokens.reshape(b, h // size, w // size, size, size, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(b, -1, h, w)


class WindowAttention(nn.Module):
    """Attention inside windows of size×size cells with learned relative positions.

    Memory grows linearly with the image. `shifted` moves the grid of windows by half a window, so
    that two layers in a row carry information across borders (Liu et al., Swin, 2021); the image
    is padded by repeating its border instead of being rolled, so no cell meets one from the other
    side of the image.
    """

    def __init__(self, channels: int, heads: int, size: int, shifted: bool = False) -> None:
        super().__init__()
        self.size, self.shifted = size, shifted
        self.attention = Attention(channels, heads)
        self.table = nn.Parameter(torch.zeros(heads, (2 * size - 1) ** 2))
        axis = torch.arange(size)
        y, x = (t.flatten() for t in torch.meshgrid(axis, axis, indexing="ij"))
        index = ((y[:, None] - y[None] + size - 1) * (2 * size - 1)
                 + x[:, None] - x[None] + size - 1)
        self.register_buffer("index", index, persistent=False)
        self.index: Tensor

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """(B, C, H, W) asks (B, C, H, W) in the same window."""
        batch, _, height, width = query.shape
        top = self.size // 2 if self.shifted else 0
        bottom, right = (-(height + top)) % self.size, (-(width + top)) % self.size
        padding = (top, right, top, bottom)
        padded = [F.pad(t, padding, mode="replicate") for t in (query, memory)]
        shape = (batch, height + top + bottom, width + top + right)
        bias = self.table[:, self.index]
        tokens = self.attention(*(to_windows(t, self.size) for t in padded), bias)
        grid = from_windows(tokens, self.size, shape)
        return grid[:, :, top:top + height, top:top + width]
