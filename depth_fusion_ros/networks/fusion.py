"""Fusion of left, right and RGB features at one scale, in the paper's way and its two rivals.

| mode | weights | source |
|---|---|---|
| "feature" | one map per modality, (B, 3, H, W) | DiFuse-Net (IROS 2025), section on fusion |
| "pixel" | one map for the sum of the three, (B, 1, H, W) | its losing ablation; form inferred |
| "channel" | one number per modality and channel, (B, 3·C, 1, 1), averaged over the image | same |

The paper names the two losing variants and does not write them down; read beside the "feature"
form they say what a weight belongs to: a pixel, or a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct

MODES = ("feature", "pixel", "channel")


class ThreeMapFusion(nn.Module):
    """Weigh left, right and RGB features, sum and convolve; see the module docstring.

    Whatever mode and weights, a freshly made weight is near 1 (0.5 with "sigmoid").

    Args:
        channels: C of each of the three inputs and of the result.
        extra: channels of the extra maps together.
        weights: "softmax" over the modalities times 3 (for the single map of "pixel", where a
            softmax would be 1, twice a sigmoid), "sigmoid", or "none".
        mode: one of `MODES`.

    Raises:
        ValueError: unknown mode.
    """

    def __init__(self, channels: int, extra: int, weights: str, mode: str = "feature") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"fusion mode = {mode!r}: use one of {MODES}")
        self.weights, self.mode = weights, mode
        maps = {"feature": 3, "pixel": 1, "channel": 3 * channels}[mode]
        self.attend = nn.Sequential(
            ConvNormAct(3 * channels + extra, channels, 3, activation="prelu"),
            nn.Conv2d(channels, maps, 1))
        self.mix = ConvNormAct(channels + extra, channels, 3, activation="prelu")

    def forward(self, left: Tensor, right: Tensor, rgb: Tensor, extra: list[Tensor]) -> Tensor:
        """(B, C, H, W) each, extra maps (B, ·, H, W) for the weights and the mix."""
        maps = self._normalise(self.attend(torch.cat([left, right, rgb, *extra], 1)))
        if self.mode == "pixel":
            fused = maps * (left + right + rgb)
        else:
            for_left, for_right, for_rgb = maps.chunk(3, 1)
            fused = for_left * left + for_right * right + for_rgb * rgb
        y: Tensor = self.mix(torch.cat([fused, *extra], 1))
        return y

    def _normalise(self, maps: Tensor) -> Tensor:
        """Weights of the three modalities, one after the other along the channels."""
        if self.mode == "channel":
            maps = maps.mean((2, 3), keepdim=True)
        if self.weights == "sigmoid":
            return torch.sigmoid(maps)
        if self.weights != "softmax":
            return maps
        if self.mode == "pixel":
            return 2 * torch.sigmoid(maps)
        if self.mode == "channel":
            return torch.softmax(maps.unflatten(1, (3, -1)), 1).flatten(1, 2) * 3
        return torch.softmax(maps, 1) * 3
