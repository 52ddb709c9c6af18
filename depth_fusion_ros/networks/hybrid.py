"""HybridDepth-style baseline: one global scale and shift, then a refinement of per-pixel scales.

    D_g = scale·D_r + shift (least squares over all pixels, none weighted)
    S = D_m / D_g;   D = D_g · ReLU(1 + refine(D_g, S, U))

Source: HybridDepth (Ganj et al., WACV 2025) as its public code has it (notes); its refinement is
a MiDaS-small decoder on EfficientNet-Lite3 with ImageNet weights, 21.3 M parameters. Here it is a
U-Net of our blocks, a little larger than our fusion, trained on the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.alignment import align
from depth_fusion_ros.networks.blocks import ConvNormAct, HeadConv, InvertedResidual

NEAREST_DIOPTERS = 0.02
LARGEST_RATIO = 10.0


@dataclass(frozen=True)
class HybridConfig:
    """Encoder channels at 1/2, 1/4, 1/8 and 1/16 of the refinement."""

    widths: tuple[int, int, int, int] = (16, 24, 40, 56)

    @property
    def stride(self) -> int:
        """Height and width must be multiples of it."""
        return 16


class HybridRefinement(nn.Module):
    """See the module docstring."""

    def __init__(self, config: HybridConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HybridConfig()
        self.enter = nn.Sequential(ConvNormAct(3, 8, 3), ConvNormAct(8, config.widths[0], 3, 2))
        self.encoder = nn.ModuleList(
            nn.Sequential(InvertedResidual(a, b, 2, 4), InvertedResidual(b, b, 1, 4))
            for a, b in pairwise(config.widths))
        self.decoder = nn.ModuleList(
            ConvNormAct(b + a, a, 3, activation="prelu")
            for a, b in reversed(list(pairwise(config.widths))))
        self.head = nn.Sequential(ConvNormAct(config.widths[0], 16, 3, activation="prelu"),
                                  HeadConv(16, 1, 3, padding=1))
        last = self.head[1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, measured: Tensor, sigma: Tensor, prior: Tensor) -> Tensor:
        """Fuse.

        Args:
            measured, sigma: (B, 1, H, W) inverse depth from focus and its deviation, dioptres.
            prior: relative inverse depth, same shape; H, W multiples of 16.

        Returns:
            (B, 1, H, W) inverse depth, dioptres, at least `NEAREST_DIOPTERS`.
        """
        scale, shift = align(prior, measured, torch.ones_like(measured), iterations=1)
        whole = (scale * prior + shift).clamp_min(NEAREST_DIOPTERS)
        ratio = (measured / whole).clamp(0, LARGEST_RATIO)
        x = self.enter(torch.cat([whole / 2, ratio, sigma], 1))
        features = [x]
        for block in self.encoder:
            x = block(x)
            features.append(x)
        features.pop()
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, features.pop()], 1))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return (whole * torch.relu(1 + self.head(x))).clamp_min(NEAREST_DIOPTERS)
