"""The published attention fusion of focus and a monocular prior, as in the paper and in the code.

"Attention-Driven Depth Fusion: Leveraging Focus and Single-Image Priors with Self-Cross Attention"
and its public code (CrossDepth, whose layer list is in the notes; written anew from it). Two
branches of tokens, (D_m, U_m) and (D_r, U_m), patches of 4×4 px; self-attention in each, then
cross-attention, then a convolutional decoder at full resolution.

| | paper | code |
|---|---|---|
| positions | learned | none |
| cross-attention | the prior's branch asks the measured one | both ways, one after the other |
| after it | feed-forward on the concatenation | plain concatenation |

Every token attends to every token: at 384×576 that is 13 824 tokens, and a map of scores would
take 2.85 GiB in single precision (kept here by no layer, but computed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.attention_layers import Attention

PATCH = 4
CHANNELS = 32
HEADS = 4
HIDDEN = 128
BLOCKS = 2
START_DIOPTERS = 1.0
"""What a fresh network answers about: the clamp passes no gradient outside its limits, and weights
that start around 0 would lie below the lower one everywhere and never learn."""
POSITIONS = 32
"""The paper's learned positions: a grid of 32×32 vectors, interpolated to the size of the image."""


@dataclass(frozen=True)
class CrossDepthConfig:
    """Switches of the published network.

    Attributes:
        variant: "code" (107 585 parameters) or "paper", see the module.
        low, high: the result is clamped to them, dioptres. The code's 0.02–0.5 are disparities
            of DDFF-12.
    """

    variant: Literal["paper", "code"] = "code"
    low: float = 0.02
    high: float = 8.0


class SelfEncoder(nn.Module):
    """Post-norm transformer layer: attention, then 32→128→32 with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(CHANNELS, HEADS)
        self.norm_1, self.norm_2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.mlp = nn.Sequential(nn.Linear(CHANNELS, HIDDEN), nn.ReLU(inplace=True),
                                 nn.Linear(HIDDEN, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        x = self.norm_1(x + self.attention(x, x))
        y: Tensor = self.norm_2(x + self.mlp(x))
        return y


class CrossAttention(nn.Module):
    """LN(q + attention(q, kv))."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(CHANNELS, HEADS)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """(B, N, C) asks (B, M, C)."""
        y: Tensor = self.norm(query + self.attention(query, memory))
        return y


class _Block(nn.Module):
    def __init__(self, both_ways: bool) -> None:
        super().__init__()
        self.self_measured, self.self_prior = SelfEncoder(), SelfEncoder()
        self.prior_asks = CrossAttention()
        self.measured_asks = CrossAttention() if both_ways else None

    def forward(self, measured: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        measured, prior = self.self_measured(measured), self.self_prior(prior)
        if self.measured_asks is not None:
            measured = self.measured_asks(measured, prior)
        return measured, self.prior_asks(prior, measured)


class CrossDepth(nn.Module):
    """See the module docstring."""

    def __init__(self, config: CrossDepthConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CrossDepthConfig()
        paper = config.variant == "paper"
        self.embed_measured = nn.Conv2d(2, CHANNELS, PATCH, PATCH)
        self.embed_prior = nn.Conv2d(2, CHANNELS, PATCH, PATCH)
        self.positions = (nn.Parameter(0.02 * torch.randn(1, CHANNELS, POSITIONS, POSITIONS))
                          if paper else None)
        self.blocks = nn.ModuleList(_Block(both_ways=not paper) for _ in range(BLOCKS))
        both = 2 * CHANNELS
        self.mix = (nn.Sequential(nn.Linear(both, 2 * both), nn.ReLU(inplace=True),
                                  nn.Linear(2 * both, both)) if paper else nn.Identity())
        self.decoder = nn.Sequential(nn.Conv2d(both, both, 3, padding=1), nn.ReLU(inplace=True),
                                     nn.Conv2d(both, 1, 3, padding=1))
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, START_DIOPTERS)

    def forward(self, measured: Tensor, sigma: Tensor, prior: Tensor) -> Tensor:
        """Fuse.

        Args:
            measured: (B, 1, H, W) inverse depth from focus, dioptres; H, W multiples of 4.
            sigma: its standard deviation, same shape and unit. prior: relative inverse depth,
                same shape, raw as published.

        Returns:
            (B, 1, H, W) inverse depth, dioptres, in `low`..`high`.
        """
        maps = [self.embed_measured(torch.cat([measured, sigma], 1)),
                self.embed_prior(torch.cat([prior, sigma], 1))]
        height, width = maps[0].shape[2:]
        if self.positions is not None:
            grid = F.interpolate(self.positions, (height, width), mode="bilinear",
                                 align_corners=False)
            maps = [m + grid for m in maps]
        d, r = (m.flatten(2).transpose(1, 2) for m in maps)
        for block in self.blocks:
            d, r = block(d, r)
        tokens = self.mix(torch.cat([d, r], -1))
        x = tokens.transpose(1, 2).unflatten(2, (height, width))
        x = F.interpolate(x, scale_factor=float(PATCH), mode="bilinear", align_corners=False)
        x = F.avg_pool2d(self.decoder(x), 3, 1, 1)
        return x.clamp(self.config.low, self.config.high)
